"""What the worker makes of styles of the library: others, and what is known of their layers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from trainer.bases.families import BUNDLED
from trainer.errors import PatinaError
from trainer.studio.folder import StudioFolder, new_id
from trainer.studio.library import Ask, Library
from trainer.studio.views import AnatomyView, ComparedView, LayerView, SharedDirections, StyleCard
from trainer.studio.worker.protocol import Compare, Dissect, Rework

_TOO_LONG = ("patina.config", "ss_tag_frequency", "ss_dataset_dirs", "ss_datasets", "ss_bucket_info")
"""Metadata too long to be put side by side."""


class Workshop:
    """Works on styles of a library.

    Args:
        ask: has the worker do it, and waits for the answer.
    """

    def __init__(self, home: StudioFolder, library: Library, ask: Ask) -> None:
        self._home, self._library, self._ask = home, library, ask

    def smaller(self, style_id: str, rank: int) -> str:
        """A new style with the strongest directions alone of another's layers; returns its id. Takes seconds.

        Raises:
            PatinaError: as of `trainer.workbench.resize.resize`.
        """
        card = self._library.card(style_id)
        return self._reworked([(card, 1.0)], rank, f"{card.name} {rank}")

    def merged(self, parts: Sequence[tuple[str, float]], rank: int | None = None) -> str:
        """A new style that is others at once, each an id with its strength; returns its id. Takes seconds.

        Args:
            rank: most directions of a layer; None keeps all, which is exact.

        Raises:
            PatinaError: as of `trainer.workbench.merge.merge`.
        """
        cards = [(self._library.card(style_id), strength) for style_id, strength in parts]
        return self._reworked(cards, rank, " + ".join(card.name for card, _ in cards))

    def part(self, style_id: str, keep: str) -> str:
        """A new style with some of another's layers; returns its id. Takes seconds.

        Args:
            keep: ``style``, ``content`` or a named target, as of `trainer.workbench.split.split`.

        Raises:
            PatinaError: as of that function.
        """
        card = self._library.card(style_id)
        return self._reworked([(card, 1.0)], None, f"{card.name} {keep}", keep)

    def compared(self, first: str, second: str) -> ComparedView:
        """What differs between two styles. Takes seconds.

        Raises:
            PatinaError: there is no such style, or its file cannot be read.
        """
        one, other = self._library.card(first), self._library.card(second)
        found = self._ask(Compare(ask=new_id("compare"), first=str(one.file), second=str(other.file)))
        told = {key: tuple(values) for key, values in found["settings"].items() if not key.startswith(_TOO_LONG)}
        return ComparedView(
            styles=(first, second),
            names=(one.name, other.name),
            norms=(found["norms"][0], found["norms"][1]),
            angle=found["angle"],
            shared=len(found["layers"]),
            alone=(len(found["only_first"]), len(found["only_second"])),
            settings=told,
            notes=tuple(found["notes"]),
            shared_directions=tuple(
                SharedDirections(each["kind"], each["layers"], tuple(map(tuple, each["similarity"])), each["by_chance"])
                for each in found["shared_directions"]
            ),
        )

    def anatomy(self, style_id: str) -> AnatomyView:
        """What a style does to each layer, beside its base's weights where that is on this machine. Takes seconds.

        Raises:
            PatinaError: there is no such style, or its change depends on the base.
        """
        card = self._library.card(style_id)
        # A file from elsewhere may name any path as its base; only runs' own are opened.
        base = "bundled" if card.family == BUNDLED.key else card.base if card.origin == "trained" else ""
        try:
            found = self._ask(Dissect(ask=new_id("dissect"), path=str(card.file), base=base))
        except PatinaError as error:
            raise type(error)(str(error).replace(str(card.file), card.name)) from None
        layers = tuple(LayerView(**{**each, "sizes": tuple(each["sizes"])}) for each in found["layers"])
        return AnatomyView(style_id, layers, found["smaller"], found["kept"], found["energy"])

    def _reworked(self, cards: Sequence[tuple[StyleCard, float]], rank: int | None, name: str, keep: str = "") -> str:
        self._home.require_space(sum(card.size_bytes for card, _ in cards), "This style")
        ask = new_id("rework")
        target = self._home.downloads / ask / "style.safetensors"
        target.parent.mkdir(parents=True)
        sources = tuple((str(card.file), strength) for card, strength in cards)
        try:
            self._ask(Rework(ask=ask, sources=sources, rank=rank, target=str(target), name=name[:80], keep=keep))
            return self._library.add(target, name[:80])
        except PatinaError as error:
            text = str(error)
            for card, _ in cards:
                # Where the studio keeps its files says nothing to whoever chose a style.
                text = text.replace(str(card.file), card.name)
            raise type(error)(text) from None
        finally:
            shutil.rmtree(target.parent, ignore_errors=True)

"""Where the worker draws: one base kept warm, its bank with the styles of the latest request, and files read before."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainer.adapters.bank import Bank
from trainer.adapters.blocks import factor_of, read_blocks
from trainer.adapters.methods import method_named
from trainer.bases.base import Base
from trainer.bases.open import load_base
from trainer.config import BaseConfig, RunConfig
from trainer.errors import AdapterFileError, RunError, StudioError
from trainer.hardware import give_back_memory, physical_cores, pick_device, pick_dtype, set_up_threads
from trainer.preview.generate import Canvas, generate
from trainer.preview.order import PlacedStyle, PreviewRow, live_weights, weights_in
from trainer.preview.png import parameters_of, save_png
from trainer.studio.worker.protocol import Draw
from trainer.styles.alpha import BEFORE_ASKED
from trainer.styles.file import StyleFile
from trainer.styles.fit import attach
from trainer.styles.names import as_in_files
from trainer.styles.read import read_style
from trainer.training import checkpoint as checkpoints
from trainer.training.room import memory_limit
from trainer.training.run_folder import RunFolder

if TYPE_CHECKING:
    from trainer.training.pausing import Session

KEPT_FILES = 16
Identity = tuple[str, int, int]
OnStep = Callable[[int, int], bool]
OnPicture = Callable[[int, Path, Sequence[str]], None]
"""Told of each picture: its index, its file, and for each style which weights it was drawn with."""


class WarmBase:
    """One base at a time, with everything that is drawn on it.

    Args:
        runs: the folder that holds the runs' folders.
        own_card: this process sees one card of several, which is meant whatever number a run calls it by.
    """

    def __init__(self, runs: Path, *, own_card: bool = False) -> None:
        self._runs, self._own_card = runs, own_card
        self._base: Base | None = None
        self._loaded: tuple[BaseConfig, torch.device, torch.dtype] | None = None
        self._bank: Bank | None = None
        self._hung: dict[str, Identity] = {}
        self._files: OrderedDict[Identity, StyleFile] = OrderedDict()

    @property
    def base(self) -> Base | None:
        return self._base

    def base_for_training(self, config: RunConfig) -> Base:
        """The base of a run, loaded if it is not at hand, with nothing attached to it.

        Raises:
            BaseError, DeviceError: it cannot be loaded.
        """
        wish = config.train.device
        device = pick_device("cuda" if self._own_card and wish.startswith("cuda:") else wish)
        dtype = pick_dtype(device, config.train.precision)
        limit = memory_limit(config, device)
        return self._open(config.base, device, dtype, offline=config.train.offline, limit=limit)

    def base_for_drawing(self, config: BaseConfig) -> Base:
        """A base to draw with: the one at hand if it is that one, in whatever number format it is."""
        if self._base is not None and self._loaded is not None and self._loaded[0] == config:
            return self._base
        device = pick_device("auto")
        set_up_threads(physical_cores())
        return self._open(config, device, pick_dtype(device, "auto"), offline=False)

    def draw(
        self,
        request: Draw,
        on_step: OnStep,
        on_picture: OnPicture,
        session: Session | None = None,
        live: str = "",
    ) -> None:
        """Draw a request's rows and write them with their settings.

        During a training (``session``, of the run ``live``) its own base and bank are used, and left as they were.

        Raises:
            PatinaError: a style or setting that cannot be used.
            trainer.preview.generate.Cancelled: ``on_step`` asked for it.
        """
        if session is not None:
            with self._guests(session, live, request.styles) as columns:
                used = [self._weights(style, session, live) for style in request.styles]
                self._paint(session.base, session.bank, request, columns, used, on_step, on_picture)
            return
        base = self.base_for_drawing(request.base)
        if self._bank is None:
            self._bank = Bank(base.roots)
        columns = self._hang(self._bank, request.styles)
        used = [self._weights(style) for style in request.styles]
        self._paint(base, self._bank, request, columns, used, on_step, on_picture)

    def clear(self) -> None:
        """Take every style off the base, which then is as it was loaded."""
        if self._bank is not None:
            self._bank.detach()
        self._bank = None
        self._hung.clear()

    def free(self) -> None:
        """Let go of everything that holds memory."""
        self.clear()
        self._base = self._loaded = None
        self._files.clear()
        gc.collect()
        give_back_memory()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _open(
        self,
        config: BaseConfig,
        device: torch.device,
        dtype: torch.dtype,
        *,
        offline: bool,
        limit: int | None = None,
    ) -> Base:
        if self._base is not None and self._loaded is not None:
            if self._loaded[0] == config and self._loaded[1:] == (device, dtype):
                self.clear()
                return self._base
            # Two bases at once may not fit.
            self.free()
        self._base = load_base(config, device=device, dtype=dtype, offline=offline, memory_limit=limit)
        self._loaded = (config, device, dtype)
        return self._base

    def _paint(
        self,
        base: Base,
        bank: Bank,
        request: Draw,
        columns: Sequence[int],
        used: Sequence[str],
        on_step: OnStep,
        on_picture: OnPicture,
    ) -> None:
        rows = [_spread(row, columns, len(bank.names)) for row in request.rows]
        pictures = generate(base, bank, rows, request.settings, on_step=on_step)
        names = [style.name for style in request.styles]
        for index, row, picture in zip(request.indices, request.rows, pictures, strict=True):
            path = Path(request.folder) / f"{index:02d}.png"
            canvas = Canvas.of(base, row.settings or request.settings)
            save_png(picture, path, parameters_of(row, canvas, names, base.title))
            on_picture(index, path, used)

    def _hang(self, bank: Bank, styles: Sequence[PlacedStyle]) -> list[int]:
        """Attach exactly the wanted styles; for each the column of its strength."""
        wanted = {f"style-{index}": self._resolve(style) for index, style in enumerate(styles)}
        for name, identity in list(self._hung.items()):
            if wanted.get(name) != identity:
                bank.remove(name)
                del self._hung[name]
        for name, identity in wanted.items():
            if name not in self._hung:
                attach(bank, name, self._read(identity))
                self._hung[name] = identity
        for name, style in zip(wanted, styles, strict=True):
            bank.weigh(name, read_blocks(style.blocks))
        return [bank.names.index(name) for name in wanted]

    @contextmanager
    def _guests(self, session: Session, live: str, styles: Sequence[PlacedStyle]) -> Iterator[list[int]]:
        """Styles beside the one in training, for a while; the bank is afterwards as it was."""
        bank = session.bank
        strengths = bank.strengths
        guests: list[str] = []
        weighed: list[str] = []
        columns: list[int] = []
        try:
            for index, style in enumerate(styles):
                name = session.style
                if _is_guest(style, live):
                    name = f"guest-{index}"
                    attach(bank, name, self._read(self._resolve(style)))
                    guests.append(name)
                    bank.weigh(name, read_blocks(style.blocks))
                elif style.blocks:
                    bank.weigh(name, read_blocks(style.blocks))
                    weighed.append(name)
                columns.append(bank.names.index(name))
            yield columns
        finally:
            for name in weighed:
                bank.weigh(name, {})
            for name in guests:
                bank.remove(name)
            bank.set_strengths(strengths)

    def _resolve(self, style: PlacedStyle) -> Identity:
        """A style's path with what tells whether it was changed since.

        Raises:
            AdapterFileError: it is not there.
        """
        path = Path(style.path) if style.path else self._latest(style.style)
        marker = path / "manifest.json" if path.is_dir() else path
        try:
            status = marker.stat()
        except OSError:
            raise AdapterFileError(
                f"{style.name} is not there any more ({path.name}); choose another file or checkpoint."
            ) from None
        return str(path), status.st_mtime_ns, status.st_size

    def _weights(self, style: PlacedStyle, session: Session | None = None, live: str = "") -> str:
        """Which weights a style stands for now, to be kept with its pictures."""
        if session is not None and not _is_guest(style, live):
            return live_weights(session.step)
        return weights_in(Path(style.path) if style.path else self._latest(style.style))

    def _latest(self, run: str) -> Path:
        """What a run that is not in training has to show: its file, or else its newest checkpoint."""
        folder = RunFolder(self._runs / run)
        if folder.adapter_file.is_file():
            return folder.adapter_file
        found = folder.saved()
        if not found:
            raise StudioError("This run has not saved anything yet. Try again when it trains.")
        return found[0][1]

    def _read(self, identity: Identity) -> StyleFile:
        if identity in self._files:
            self._files.move_to_end(identity)
            return self._files[identity]
        path = Path(identity[0])
        file = checkpoint_as_file(path) if path.is_dir() else read_style(path, alpha=BEFORE_ASKED)
        self._files[identity] = file
        if len(self._files) > KEPT_FILES:
            self._files.popitem(last=False)
        return file


def _is_guest(style: PlacedStyle, live: str) -> bool:
    """Whether a style has to be read from a file while the run ``live`` is in training."""
    return bool(style.path) or style.style != live


def checkpoint_as_file(path: Path) -> StyleFile:
    """A checkpoint's adapter (its average, where the run keeps one) as if it had been exported.

    Raises:
        RunError: the checkpoint is damaged, or does not lie in a run folder.
    """
    config = RunFolder(path.parent.parent).config()
    rank, alpha = config.adapter.rank, config.adapter.alpha
    if rank is None or alpha is None:
        raise RunError(f"{path} belongs to a run that never started.")
    found = checkpoints.read(path)
    state = {**found.adapter, **(found.average or {})}
    layers = method_named(config.adapter.method, config.adapter.model_dump()).layers(state, rank, alpha)
    factors = read_blocks(config.adapter.blocks)
    layers = {as_in_files(p): replace(layer, alpha=layer.alpha * factor_of(p, factors)) for p, layer in layers.items()}
    return StyleFile(path, "checkpoint", layers, {})


def _spread(row: PreviewRow, columns: Sequence[int], width: int) -> PreviewRow:
    """A row's strengths in the order of the bank; styles that the request does not name stay closed."""
    strengths = [0.0] * width
    for column, strength in zip(columns, row.strengths, strict=False):
        strengths[column] = strength
    return row.model_copy(update={"strengths": tuple(strengths)})

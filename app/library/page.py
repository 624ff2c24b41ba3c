"""The Library tab: a gallery of styles, and over it the one that is open."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.entered import Entered
from app.library import view
from app.library.tools import ShareForm
from app.refresh import ACTION, MANY, POLL, Panels, Shown, Updates, answered, render, tell, told
from app.texts import TEXTS, said
from trainer.errors import AlphaUnknown, ConfigError, PatinaError, StudioError
from trainer.publishing.parcel import Choices
from trainer.studio.views import AnatomyView, ComparedView
from trainer.styles.alpha import Alpha

if TYPE_CHECKING:
    from app.shell import Shell, Visit

_SHOWN_FIRST = "async (page, ...rest) => [...(await patina.module('page.js')).shown(), ...rest]"


@dataclass
class Looking:
    """What one visitor has open, what the shelf is narrowed to, and what can be undone; only ids and names.

    Attributes:
        waiting: an uploaded file whose alpha is asked for.
    """

    style: str = ""
    family: str = ""
    tag: str = ""
    deleted: str = ""
    note: str = ""
    waiting: str = ""
    share: ShareForm = field(default_factory=ShareForm)
    compared: ComparedView | None = None
    looked_into: AnatomyView | None = None


def build(shell: Shell, tab: gr.Tab) -> None:
    """Make the tab's components and listeners; called inside its ``gr.Tab``."""
    page, looking, panels = gr.Textbox(visible=False), gr.State(Looking()), Panels()
    with gr.Row(elem_id="library-bar", equal_height=True):
        search = shell.says(
            gr.Textbox(elem_id="library-search", scale=3, **_search()),
            _search,
        )
        upload = shell.says(
            gr.UploadButton(
                TEXTS.library.import_file,
                file_types=[".safetensors"],
                type="filepath",
                elem_id="library-import",
                scale=0,
                min_width=176,
            ),
            lambda: {"label": TEXTS.library.import_file},
        )
    for name in ("families", "library-note", "shelf"):
        panels.place(name)
    panels.place("style", script="library/dialog.js")
    Listeners(shell, panels, page, looking, search, upload).wire()


def _search() -> dict[str, str]:
    return {"label": TEXTS.library.search, "placeholder": TEXTS.library.search_placeholder}


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def _strength(text: str) -> float:
    """A strength that somebody typed.

    Raises:
        ConfigError: it is no number that a strength could be.
    """
    try:
        strength = float(text.replace(",", "."))
    except ValueError:
        strength = math.nan
    if not abs(strength) <= 4:
        raise ConfigError(f"The strength is {text!r}, but should be a number from -4 to 4.")
    return strength


class Listeners:
    """The tab's listeners over its components; they keep nothing themselves."""

    def __init__(
        self,
        shell: Shell,
        panels: Panels,
        page: gr.Textbox,
        looking: gr.State,
        search: gr.Textbox,
        upload: gr.UploadButton,
    ) -> None:
        self.shell, self.studio, self.panels = shell, shell.studio, panels
        self.page, self.looking, self.search, self.upload = page, looking, search, upload
        self.entered = Entered(self.write)

    def wire(self) -> None:
        """Attach them."""
        panels, shell = self.panels, self.shell
        inputs = {self.looking, self.search}
        every = panels.all
        self.search.change(self.look, inputs=inputs, outputs=every, **POLL)
        tick = shell.ticker("library", 1.0).tick
        tick(self.follow, inputs={self.page, *inputs}, outputs=every, js=_SHOWN_FIRST, **POLL)
        shell.visits["library"].change(
            told(self.visited), inputs={shell.visits["library"], *inputs}, outputs=every, **ACTION
        )
        leaving = {*every, *shell.going("preview"), *shell.going("train")}
        for name in ("families", "library-note", "shelf", "style"):
            panels.parts[name].click(told(self.act), inputs=inputs, outputs=leaving, **MANY)
        panels.parts["style"].input(told(self.changed), inputs=inputs, outputs=every, **MANY)
        outputs = {*every, self.search}
        self.upload.upload(self.bring_in, inputs={self.upload, *inputs}, outputs=outputs, **ACTION)

    def drawn(self, looking: Looking, search: str) -> dict[str, str]:
        """Every panel of the tab."""
        studio = self.studio
        everything = studio.library.cards()
        if looking.style and all(card.id != looking.style for card in everything):
            looking.style = ""
        if looking.tag and all(looking.tag not in card.tags for card in everything):
            looking.tag = ""
        found = studio.library.cards(search.strip(), looking.family, looking.tag)
        filtered = bool(search.strip() or looking.family or looking.tag)
        opened = None
        if looking.style:
            opened = view.opened(
                studio.library.view(looking.style), everything, looking.share, looking.compared, looking.looked_into
            )
        note = view.note(looking.note, undo=bool(looking.deleted))
        return {
            "families": render(
                "families", view.families(everything, looking.family), view.tags(everything, looking.tag)
            ),
            "library-note": render(
                "library-note", view.alpha_form(Path(looking.waiting).name) if looking.waiting else note
            ),
            "shelf": render("shelf", view.shelf(found, filtered=filtered)),
            "style": render("style", opened),
        }

    def look(self, data: dict[Any, Any]) -> Updates:
        """Everything as it is now, for an answer to an action."""
        return self.panels.updates(Shown(), self.drawn(data[self.looking], data[self.search]))

    def follow(self, data: dict[Any, Any]) -> Any:
        """What differs from what the page shows."""
        drawn = self.drawn(data[self.looking], data[self.search])
        return answered(self.panels.updates(Shown.parse(data[self.page]), drawn))

    def visited(self, data: dict[Any, Any]) -> Updates:
        """Another tab sends a style here."""
        visit: Visit = data[self.shell.visits["library"]]
        data[self.looking].style = visit.item
        return self.look(data)

    def act(self, data: dict[Any, Any], event: gr.EventData) -> Updates:
        """A click: open, close, narrow, delete and undo, or go to another tab."""
        looking: Looking = data[self.looking]
        self.entered.take(event._data)
        act, words = str(event.act), TEXTS.library
        if act == "open":
            looking.style, looking.note, looking.deleted = str(event.id), "", ""
        elif act == "close":
            looking.style = ""
        elif act == "family":
            looking.family = str(event.family)
        elif act == "tag":
            looking.tag = "" if looking.tag == str(event.tag) else str(event.tag)
        elif act == "delete":
            name = self.studio.library.view(looking.style).card.name
            self.studio.library.delete(looking.style)
            looking.deleted, looking.style = looking.style, ""
            looking.note = words.deleted.format(name=name)
        elif act == "undo":
            self.studio.library.restore(looking.deleted)
            looking.style, looking.deleted = looking.deleted, ""
            looking.note = words.restored.format(name=self.studio.library.view(looking.style).card.name)
        elif act in ("try", "checkpoint"):
            step = int(event.step) if act == "checkpoint" else 0
            style, looking.style = looking.style, ""
            return {**self.look(data), **self.shell.visit("preview", style, step=step)}
        elif act == "again":
            draft, looking.style = self.studio.drafts.duplicate(looking.style), ""
            return {**self.look(data), **self.shell.visit("train", draft)}
        elif act in ("alpha", "alpha-rank") and looking.waiting:
            self.answered(looking, dict(event.fields), rank=act == "alpha-rank")
        elif act == "alpha-cancel":
            looking.waiting = looking.note = ""
        elif act == "compare":
            looking.compared = self.studio.workshop.compared(looking.style, str(event.fields.get("other", "")))
        elif act == "dissect":
            looking.looked_into = self.studio.workshop.anatomy(looking.style)
        elif act in ("smaller", "merge", "part"):
            self.rework(looking, act, event.fields)
        elif act in ("pack", "push"):
            self.share(looking, act, event.fields)
        return self.look(data)

    def answered(self, looking: Looking, fields: dict[str, Any], *, rank: bool) -> None:
        """The alpha that a waiting file did not say was told: take the file in."""
        by_root = fields.get("counts") == "root"
        text = "rank" if rank else str(fields.get("alpha", ""))
        alpha = Alpha.parse(text, by_root=by_root, name=TEXTS.library.alpha)
        file = Path(looking.waiting)
        looking.style = self.studio.library.add(file, file.stem, alpha)
        looking.waiting = ""
        looking.note = TEXTS.library.imported.format(name=self.studio.library.view(looking.style).card.name)

    def rework(self, looking: Looking, act: str, fields: Mapping[str, str]) -> None:
        """Make another style of the one that is open, and open that; the worker does it, which takes seconds."""
        workshop, rank = self.studio.workshop, _whole(fields.get("rank", ""))
        if act == "smaller":
            looking.style = workshop.smaller(looking.style, rank or 1)
        elif act == "part":
            looking.style = workshop.part(looking.style, str(fields.get("keep", "")))
        else:
            strengths = [_strength(fields.get(name, "")) for name in ("strength", "other_strength")]
            pairs = zip((looking.style, str(fields.get("other", ""))), strengths, strict=True)
            looking.style = workshop.merged(list(pairs), rank)
        looking.note = TEXTS.library.reworked.format(name=self.studio.library.view(looking.style).card.name)

    def share(self, looking: Looking, act: str, fields: Mapping[str, str]) -> None:
        """Pack the style that is open, or send what was packed to the hub."""
        form, sharing = looking.share, self.studio.sharing
        if act == "pack":
            choices = Choices(
                keep_private=fields.get("private") == "keep",
                license=fields.get("license", "").strip(),
                base=fields.get("base", "").strip(),
            )
            looking.share = ShareForm(sharing.pack(looking.style, choices), choices)
        elif form.packed is not None and form.packed.style == looking.style:
            choices = replace(form.choices, repo=fields.get("repo", "").strip())
            address = sharing.push(looking.style, choices, private=fields.get("hidden") == "private")
            looking.share = replace(form, sent=address)

    def write(self, entry: Mapping[str, Any]) -> None:
        """A name or tags were entered."""
        style, value = str(entry.get("image", "")), str(entry.get("value", ""))
        if entry.get("set") == "tags":
            self.studio.library.set_tags(style, re.split("[,，、;]", value))
        else:
            self.studio.library.rename(style, value)

    def changed(self, data: dict[Any, Any], event: gr.EventData) -> Updates:
        """The name or the tags of the style that is open were changed."""
        if refused := self.entered.take(event._data):
            raise StudioError(refused)
        if event.set == "name":
            name = self.studio.library.view(str(event.image)).card.name
            data[self.looking].note = TEXTS.library.renamed.format(name=name)
        return self.look(data)

    def bring_in(self, data: dict[Any, Any]) -> Any:
        """A file from elsewhere; the worker looks into it, which takes seconds."""
        file, looking, words = data[self.upload], data[self.looking], TEXTS.library
        if not file:
            yield gr.skip()
            return
        looking.note, looking.deleted = words.importing.format(name=Path(file).name), ""
        looking.waiting = ""
        yield self.look(data)
        try:
            looking.style = self.studio.library.add(Path(file), Path(file).stem)
        except AlphaUnknown:
            looking.waiting, looking.note = str(file), ""
            yield self.look(data)
            return
        except PatinaError as error:
            looking.note = said(str(error))
            tell(looking.note)
            yield self.look(data)
            return
        looking.note = words.imported.format(name=self.studio.library.view(looking.style).card.name)
        looking.family = data[self.search] = ""
        yield {**self.look(data), self.search: ""}

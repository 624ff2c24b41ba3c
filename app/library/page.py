"""The Library tab: cards, and beside them the style that is open."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.html import text
from app.library.view import about, cards, downloads, families
from app.texts import TEXTS
from app.widgets import widget
from app.wiring import ACTION, POLL, news, tell, told
from trainer.errors import PatinaError

if TYPE_CHECKING:
    from app.shell import Shell, Visit
    from trainer.studio.studio import Studio

WORDS = TEXTS.library
_STEPS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-step]');
  if (button) trigger('checkpoint', { step: Number(button.dataset.step) });
});
"""


@dataclass
class Opened:
    """What one visitor has open, and what can be undone; only ids and names."""

    style: str = ""
    deleted: str = ""
    deleted_name: str = ""
    note: str = ""
    seen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """The tab's components; ``details`` lists what `details_of` fills, in its order."""

    search: gr.Textbox
    family: gr.Dropdown
    upload: gr.UploadButton
    note: gr.HTML
    undo: gr.Button
    grid: gr.HTML
    nothing: gr.HTML
    panel: gr.Column
    name: gr.Textbox
    links: gr.HTML
    about: gr.HTML
    try_it: gr.Button
    again: gr.Button
    delete: gr.Button
    question: gr.Column
    question_text: gr.HTML
    yes: gr.Button
    no: gr.Button
    close: gr.Button
    opened: gr.State

    @property
    def details(self) -> list[gr.blocks.Block]:
        return [self.nothing, self.panel, self.name, self.links, self.about, self.again, self.question]


def build(shell: Shell, tab: gr.Tab) -> None:
    """Make the tab's components and listeners; called inside its ``gr.Tab``."""
    with gr.Row(elem_id="library-bar", equal_height=True):
        search = gr.Textbox(label=WORDS.search, placeholder=WORDS.search_placeholder, elem_id="library-search", scale=3)
        family = gr.Dropdown(
            [(WORDS.all_families, "")],
            value="",
            label=WORDS.family,
            elem_id="library-family",
            filterable=False,
            scale=2,
        )
        upload = gr.UploadButton(
            WORDS.import_file,
            file_types=[".safetensors"],
            type="filepath",
            elem_id="library-import",
            scale=0,
            min_width=176,
        )
    with gr.Row(elem_id="library-note"):
        note = gr.HTML(_note(""), apply_default_css=False, scale=0)
        undo = gr.Button(WORDS.undo, size="sm", visible=False, elem_id="library-undo", scale=0, min_width=80)
    with gr.Row(elem_id="library-shelf", equal_height=False):
        with gr.Column(scale=7, min_width=320):
            grid = widget("library_cards", "cards", None, asdict(WORDS.cards))
        with gr.Column(scale=5, min_width=320, elem_id="library-details"):
            nothing = gr.HTML(f'<p class="empty">{text(WORDS.nothing_open)}</p>')
            with gr.Column(visible=False) as panel:
                with gr.Row(equal_height=True, elem_id="library-title"):
                    name = gr.Textbox(label=WORDS.name, info=WORDS.name_help, max_length=80, elem_id="library-name")
                    close = gr.Button(WORDS.close, size="sm", scale=0, min_width=72, elem_id="library-close")
                links = gr.HTML(elem_id="library-links", apply_default_css=False)
                with gr.Row(elem_id="library-actions"):
                    try_it = gr.Button(WORDS.try_it, variant="primary", size="sm", elem_id="library-try")
                    again = gr.Button(WORDS.again, size="sm", elem_id="library-again")
                    delete = gr.Button(WORDS.delete, size="sm", elem_id="library-delete")
                with gr.Column(visible=False, elem_id="library-question") as question:
                    question_text = gr.HTML(apply_default_css=False)
                    with gr.Row():
                        yes = gr.Button(WORDS.delete_yes, variant="stop", size="sm", elem_id="library-delete-yes")
                        no = gr.Button(WORDS.delete_no, size="sm")
                body = gr.HTML(
                    elem_id="library-about",
                    apply_default_css=False,
                    js_on_load=_STEPS,
                )
    wire(
        shell,
        Parts(
            search, family, upload, note, undo, grid, nothing, panel, name, links, body, try_it, again, delete,
            question, question_text, yes, no, close, gr.State(Opened()),
        ),
    )  # fmt: skip


def _note(sentence: str) -> str:
    """A line that screen readers speak when it changes."""
    return f'<p class="library-note" role="status" aria-live="polite">{text(sentence)}</p>'


def shelf(studio: Studio, opened: Opened, search: str, family: str) -> dict[str, Any]:
    """The grid for a search."""
    return cards(studio.library.cards(search.strip(), family), opened.style, filtered=bool(search.strip() or family))


def details_of(studio: Studio, opened: Opened) -> list[Any]:
    """Values for `Parts.details`."""
    if not opened.style:
        return [gr.HTML(visible=True), gr.Column(visible=False), "", "", "", gr.skip(), gr.Column(visible=False)]
    style = studio.library.view(opened.style)
    return [
        gr.HTML(visible=False),
        gr.Column(visible=True),
        style.card.name,
        downloads(style.card),
        about(style),
        gr.Button(visible=style.run is not None),
        gr.Column(visible=False),
    ]


def wire(shell: Shell, parts: Parts) -> None:
    """Attach every listener of the tab."""
    _wire_shelf(shell, parts)
    _wire_changes(shell, parts)
    _wire_ways_out(shell, parts)


def _wire_shelf(shell: Shell, parts: Parts) -> None:
    """Looking: search, filter, open, close, and keeping up with what changes elsewhere."""
    studio = shell.studio
    filters = [parts.opened, parts.search, parts.family]

    def look(opened: Opened, search: str, family: str) -> list[Any]:
        everything = studio.library.cards()
        if opened.style and all(card.id != opened.style for card in everything):
            opened.style = ""
            panel = details_of(studio, opened)[:2]
        else:
            panel = [gr.skip(), gr.skip()]
        options = [(WORDS.all_families, ""), *families(everything)]
        values = [shelf(studio, opened, search, family), gr.Dropdown(choices=options)]
        return [*news(opened.seen, values), *panel]

    shell.ticker("library", 1.0).tick(
        look, inputs=filters, outputs=[parts.grid, parts.family, parts.nothing, parts.panel], **POLL
    )
    gr.on(
        [parts.search.change, parts.family.input],
        lambda opened, search, family: shelf(studio, opened, search, family),
        inputs=filters,
        outputs=parts.grid,
        **POLL,
    )

    @told
    def open_style(opened: Opened, search: str, family: str, event: gr.EventData) -> list[Any]:
        opened.style = str(event.id)
        return [*details_of(studio, opened), shelf(studio, opened, search, family)]

    parts.grid.open(open_style, inputs=filters, outputs=[*parts.details, parts.grid], **ACTION)

    def close(opened: Opened, search: str, family: str) -> list[Any]:
        opened.style = ""
        return [*details_of(studio, opened), shelf(studio, opened, search, family)]

    parts.close.click(close, inputs=filters, outputs=[*parts.details, parts.grid], **ACTION)

    @told
    def visited(visit: Visit, opened: Opened, search: str, family: str) -> list[Any]:
        opened.style = visit.item
        return [*details_of(studio, opened), shelf(studio, opened, search, family)]

    shell.to_library.change(
        visited, inputs=[shell.to_library, *filters], outputs=[*parts.details, parts.grid], **ACTION
    )


def _wire_changes(shell: Shell, parts: Parts) -> None:
    """Changing: rename, import, delete and undo."""
    studio = shell.studio

    @told
    def rename(opened: Opened, name: str, search: str, family: str) -> list[Any]:
        studio.library.rename(opened.style, name)
        renamed = studio.library.view(opened.style).card.name
        return [_note(WORDS.renamed.format(name=renamed)), renamed, shelf(studio, opened, search, family)]

    parts.name.submit(
        rename,
        inputs=[parts.opened, parts.name, parts.search, parts.family],
        outputs=[parts.note, parts.name, parts.grid],
        **ACTION,
    )

    def bring_in(file: str | None, opened: Opened) -> Any:
        if not file:
            yield [gr.skip()] * (len(parts.details) + 3)
            return
        rest = [gr.skip()] * (len(parts.details) + 2)
        yield [_note(WORDS.importing.format(name=Path(file).name)), *rest]
        try:
            opened.style = studio.library.add(Path(file), Path(file).stem)
            card = studio.library.view(opened.style).card
        except PatinaError as error:
            tell(str(error))
            yield [_note(str(error)), *rest]
            return
        said = _note(WORDS.imported.format(name=card.name))
        yield [said, *details_of(studio, opened), "", shelf(studio, opened, "", "")]

    parts.upload.upload(
        bring_in,
        inputs=[parts.upload, parts.opened],
        outputs=[parts.note, *parts.details, parts.search, parts.grid],
        **ACTION,
    )

    @told
    def ask(opened: Opened) -> list[Any]:
        name = studio.library.view(opened.style).card.name
        question = f'<p role="alert">{text(WORDS.delete_question.format(name=name))}</p>'
        return [gr.Column(visible=True), question]

    parts.delete.click(ask, inputs=parts.opened, outputs=[parts.question, parts.question_text], **ACTION)
    parts.no.click(lambda: gr.Column(visible=False), outputs=parts.question, **POLL)

    @told
    def delete(opened: Opened, search: str, family: str) -> list[Any]:
        opened.deleted, opened.deleted_name = opened.style, studio.library.view(opened.style).card.name
        studio.library.delete(opened.style)
        opened.style = ""
        said = _note(WORDS.deleted.format(name=opened.deleted_name))
        return [said, gr.Button(visible=True), *details_of(studio, opened), shelf(studio, opened, search, family)]

    filters = [parts.opened, parts.search, parts.family]
    changed = [parts.note, parts.undo, *parts.details, parts.grid]
    parts.yes.click(delete, inputs=filters, outputs=changed, **ACTION)

    @told
    def undo(opened: Opened, search: str, family: str) -> list[Any]:
        studio.library.restore(opened.deleted)
        opened.style, opened.deleted = opened.deleted, ""
        said = _note(WORDS.restored.format(name=opened.deleted_name))
        return [said, gr.Button(visible=False), *details_of(studio, opened), shelf(studio, opened, search, family)]

    parts.undo.click(undo, inputs=filters, outputs=changed, **ACTION)


def _wire_ways_out(shell: Shell, parts: Parts) -> None:
    """Taking a style to another tab."""
    studio = shell.studio
    parts.try_it.click(
        lambda opened: shell.visit("preview", opened.style),
        inputs=parts.opened,
        outputs=shell.going("preview"),
        **ACTION,
    )

    def try_checkpoint(opened: Opened, event: gr.EventData) -> list[Any]:
        return shell.visit("preview", opened.style, step=int(event.step))

    parts.about.checkpoint(try_checkpoint, inputs=parts.opened, outputs=shell.going("preview"), **ACTION)

    @told
    def again(opened: Opened) -> list[Any]:
        return shell.visit("train", studio.drafts.duplicate(opened.style))

    parts.again.click(again, inputs=parts.opened, outputs=shell.going("train"), **ACTION)

"""What happens in the Preview tab: each listener reads the form, asks the studio, and shows what that gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.preview import styles
from app.preview.form import FRAME, SHEET, STRIP, Form, Mix, read_form
from app.preview.scene import OPEN, Scene
from app.preview.sheet import Kind, sheet_html, sheet_order
from app.preview.view import results, viewer
from app.texts import TEXTS
from app.units import duration
from app.wiring import ACTION, POLL, news, told
from trainer.errors import PatinaError, StudioError
from trainer.studio.views import JobView

if TYPE_CHECKING:
    from app.preview.page import Parts
    from app.shell import Shell, Visit
    from trainer.studio.studio import Studio

WORDS = TEXTS.preview
_ROLL = "() => crypto.getRandomValues(new Uint32Array(1))[0]"
_INDEX_OF_MIXER, _INDEX_OF_BASE = 1, -1


def wire(shell: Shell, parts: Parts) -> None:
    """Attach every listener of the tab."""
    _wire_picture(shell.studio, parts)
    _wire_sheet(shell.studio, parts)
    _wire_results(shell.studio, parts)
    _wire_visits(shell, parts)
    _wire_ticks(shell, parts)


def form_from(studio: Studio, values: tuple[Any, ...]) -> Form:
    """The form from the values of `Parts.form`; errors as in `read_form` and `styles.base_named`."""
    *rest, source = values
    base = styles.base_named(studio, str(source or ""), Mix.read(values[_INDEX_OF_MIXER]))
    return read_form(*rest, base=base)


def _wire_picture(studio: Studio, parts: Parts) -> None:
    shown = [parts.viewer, parts.cancel]

    @told
    def make(scene: Scene, *values: Any) -> list[Any]:
        scene.make(studio, form_from(studio, values))
        return [*_now(studio, scene), gr.Tabs(selected="picture")]

    gr.on(
        [parts.make.click, parts.prompt.submit, parts.negative.submit],
        make,
        inputs=[parts.scene, *parts.form],
        outputs=[*shown, parts.modes],
        **ACTION,
    )

    @told
    def moved(scene: Scene, *values: Any) -> list[Any]:
        if scene.form is None:
            return [gr.skip(), gr.skip()]
        outcome = scene.move(studio, form_from(studio, values))
        scene.hint = ""
        if outcome == "other":
            scene.hint = WORDS.changed
        elif outcome == "slow":
            pace = scene.pace.seconds
            scene.hint = WORDS.slow.format(time=duration(pace)) if pace else WORDS.changed
        return _now(studio, scene)

    parts.mixer.changed(moved, inputs=[parts.scene, *parts.form], outputs=shown, trigger_mode="always_last", **ACTION)

    @told
    def fill_film(scene: Scene) -> list[Any]:
        scene.order_film(studio, scene.look(studio))
        return _now(studio, scene)

    parts.viewer.film(fill_film, inputs=parts.scene, outputs=shown, **ACTION)

    @told
    def cancel(scene: Scene) -> list[Any]:
        scene.cancel(studio)
        return _now(studio, scene)

    parts.cancel.click(cancel, inputs=parts.scene, outputs=shown, **ACTION)
    parts.die.click(None, outputs=parts.seed, js=_ROLL)

    def say_words(prompt: str, event: gr.EventData) -> str:
        words = str(event.words)
        if words.casefold() in prompt.casefold():
            return prompt
        return f"{prompt.rstrip().rstrip(',')}, {words}" if prompt.strip() else words

    parts.mixer.words(say_words, inputs=parts.prompt, outputs=parts.prompt, **ACTION)

    @told
    def add(scene: Scene, style: str | None, mixer: object, source: str) -> list[Any]:
        if not style:
            return [gr.skip(), gr.skip(), gr.skip()]
        scene.taken = True
        mix = Mix.read(mixer)
        found = styles.find(studio, style)
        chosen: Any = found.base.source if found.base and not mix.uses else gr.skip()
        return [mix.with_use(found.use).value(), gr.Dropdown(value=None), chosen]

    parts.add.input(
        add,
        inputs=[parts.scene, parts.add, parts.mixer, parts.base],
        outputs=[parts.mixer, parts.add, parts.base],
        **ACTION,
    )


def _wire_sheet(studio: Studio, parts: Parts) -> None:
    @told
    def make(scene: Scene, prompts: str, kind: Kind, strengths: str, *values: Any) -> list[Any]:
        order = sheet_order(form_from(studio, values), prompts or "", kind, strengths or "")
        scene.show_sheet(studio.pictures.order(order))
        scene.seen.clear()
        return [_sheet(studio, scene), gr.Button(visible=True)]

    parts.make_sheet.click(
        make,
        inputs=[parts.scene, parts.prompts, parts.kind, parts.strengths, *parts.form],
        outputs=[parts.sheet, parts.cancel],
        **ACTION,
    )
    parts.kind.input(
        lambda kind: gr.Textbox(visible=kind == "strengths"), inputs=parts.kind, outputs=parts.strengths, **POLL
    )


def _wire_results(studio: Studio, parts: Parts) -> None:
    @told
    def use(scene: Scene, event: gr.EventData) -> list[Any]:
        job = studio.pictures.view(str(event.id))
        if job.order.note == SHEET:
            scene.show_sheet(job.id)
            lines = "\n".join(dict.fromkeys(row.prompt for row in job.order.rows))
            return [
                *[gr.skip()] * len(parts.form),
                gr.skip(), gr.skip(), gr.Tabs(selected="sheet"), _sheet(studio, scene), lines,
            ]  # fmt: skip
        return [*_take_up(studio, scene, job), gr.Tabs(selected="picture"), gr.skip(), gr.skip()]

    parts.results.use(
        use,
        inputs=parts.scene,
        outputs=[*parts.form, parts.viewer, parts.cancel, parts.modes, parts.sheet, parts.prompts],
        **ACTION,
    )

    @told
    def remove(event: gr.EventData) -> list[dict[str, Any]]:
        order = studio.pictures.view(str(event.id)).order
        for job in studio.pictures.newest():
            if job.order == order:
                studio.pictures.delete(job.id)
        return _gallery(studio)

    parts.results.remove(remove, outputs=parts.results, **ACTION)


def _wire_visits(shell: Shell, parts: Parts) -> None:
    """Another tab sends a style here, or the page comes back after a reload."""
    studio = shell.studio
    outputs = [*parts.form, parts.viewer, parts.cancel]

    @told
    def visited(visit: Visit, scene: Scene, prompt: str, *values: Any) -> list[Any]:
        if not visit.item:
            return [gr.skip()] * (len(outputs) + 1)
        scene.taken = True
        found = styles.find(studio, visit.item, visit.step)
        mix = Mix((found.use,))
        wanted = visit.prompt or found.prompt or prompt
        source = found.base.source if found.base else values[_INDEX_OF_BASE]
        values = (wanted, mix.value(), *values[1:_INDEX_OF_BASE], source)
        scene.make(studio, form_from(studio, values))
        unchanged = [gr.skip()] * (len(parts.form) - 3)
        return [wanted, mix.value(), *unchanged, source, *_now(studio, scene), gr.Tabs(selected="picture")]

    shell.to_preview.change(
        visited,
        inputs=[shell.to_preview, parts.scene, *parts.form],
        outputs=[*outputs, parts.modes],
        **ACTION,
    )

    def back_again(scene: Scene, event: gr.EventData) -> list[Any]:
        job = _job_to_show(studio, str(event.job))
        cards = studio.library.cards()
        # Looking took a moment, in which the visitor may have begun; what they did stays.
        if scene.taken or not (job or cards):
            return [gr.skip()] * len(outputs)
        if job is not None:
            return _take_up(studio, scene, job)
        found = styles.find(studio, cards[0].id)
        values = {
            parts.prompt: found.prompt or gr.skip(),
            parts.mixer: Mix((found.use,)).value(),
            parts.base: found.base.source if found.base else gr.skip(),
        }
        return [values.get(part, gr.skip()) for part in outputs]

    parts.viewer.opened(told(back_again), inputs=parts.scene, outputs=outputs, **ACTION)


def _wire_ticks(shell: Shell, parts: Parts) -> None:
    studio = shell.studio
    seen_lists = gr.State({})

    def tick(scene: Scene) -> list[Any]:
        jobs = scene.look(studio)
        try:
            if scene.go_on(studio, jobs):
                jobs = scene.look(studio)
        except PatinaError as error:
            scene.film, scene.hint = "offer", str(error)
        return news(scene.seen, [*_state(studio, scene, jobs), _sheet(studio, scene)])

    shell.ticker("preview", 0.5).tick(
        tick, inputs=parts.scene, outputs=[parts.viewer, parts.cancel, parts.sheet], **POLL
    )

    def look_around(known: dict[str, str]) -> list[Any]:
        offered = styles.choices(studio)
        values = [
            _gallery(studio),
            gr.Dropdown(choices=offered, info=WORDS.add_help if offered else WORDS.add_none),
            gr.Dropdown(choices=styles.bases(studio)),
        ]
        return [*news(known, values), known]

    shell.ticker("preview", 2.0).tick(
        look_around, inputs=seen_lists, outputs=[parts.results, parts.add, parts.base, seen_lists], **POLL
    )


def _now(studio: Studio, scene: Scene) -> list[Any]:
    """`_state` for a listener: what it sends the ticks do not know, so the next one sends everything again."""
    scene.seen.clear()
    return _state(studio, scene, scene.look(studio))


def _state(studio: Studio, scene: Scene, jobs: list[JobView]) -> list[Any]:
    """The viewer's value, and the stop button while there is something to stop."""
    sheet = scene.look_at_sheet(studio)
    busy = any(job.state in OPEN for job in (*jobs, *([sheet] if sheet else [])))
    return [viewer(scene, jobs, scene.hint), gr.Button(visible=busy)]


def _sheet(studio: Studio, scene: Scene) -> str:
    job = scene.look_at_sheet(studio)
    if job is None or job.state != "done":
        return sheet_html(job, None)
    try:
        scene.sheet_file = scene.sheet_file or studio.pictures.sheet(job.id)
        return sheet_html(job, scene.sheet_file)
    except StudioError as error:
        return sheet_html(replace(job, state="failed", message=str(error)), None)


def _take_up(studio: Studio, scene: Scene, job: JobView) -> list[Any]:
    """Values for the form, the viewer and the stop button that show a job again."""
    form = styles.form_again(studio, job.order)
    scene.take_up(studio, form, job.id)
    settings = form.settings
    return [
        form.prompt, form.mix.value(), form.negative, form.seed, settings.steps, settings.guidance, settings.scheduler,
        settings.width or None, settings.height or None, form.count, form.base.source,
        *_now(studio, scene),
    ]  # fmt: skip


def _job_to_show(studio: Studio, named: str) -> JobView | None:
    """The job that the page's address names, or else the newest that somebody asked for."""
    if named:
        try:
            job = studio.pictures.view(named)
        except StudioError:
            pass
        else:
            return job if job.order.rows and job.order.note != SHEET else None
    return next((job for job in studio.pictures.newest() if job.order.note not in (FRAME, STRIP, SHEET)), None)


def _gallery(studio: Studio) -> list[dict[str, Any]]:
    return results(studio.pictures.newest(), styles.names(studio))

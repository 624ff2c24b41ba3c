"""What happens in the Preview tab: each listener reads the form, asks the studio, and answers with what differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.preview import styles, view
from app.preview.form import Form, Mix, read_form
from app.preview.frames import FRAME, SHEET, STRIP
from app.preview.scene import UNDO_SECONDS, Scene
from app.preview.sheet import Axis, sheet_order, title_of
from app.preview.styles import Suits
from app.refresh import ACTION, MANY, POLL, Panels, Shown, Updates, answered, render, told
from app.subjects import with_subject
from app.texts import TEXTS, said
from app.units import duration
from app.uploads import arrived
from trainer.adapters.targets import HALVES
from trainer.bases.families import BUNDLED
from trainer.bases.prompts import literal
from trainer.errors import PatinaError, StudioError
from trainer.studio.views import JobView

if TYPE_CHECKING:
    from app.shell import Shell, Visit
    from trainer.studio.studio import Studio


@dataclass(frozen=True)
class Parts:
    """The tab's components.

    Attributes:
        fields: those that `app.preview.form.read_form` reads, by name.
        axes: those of a sheet: ``rows``, ``rows_written``, ``columns``, ``columns_written``.
        page: hidden; what the page shows, for ticks. Made first, so that it is the first of a listener's inputs.
    """

    page: gr.Textbox
    scene: gr.State
    panels: Panels
    fields: dict[str, gr.components.Component]
    axes: dict[str, gr.components.Component]
    make: gr.Button
    die: gr.Button
    modes: gr.Tabs
    make_sheet: gr.Button


_ROLL = "() => crypto.getRandomValues(new Uint32Array(1))[0]"
_SHOWN_FIRST = "async (page, ...rest) => [...(await patina.module('page.js')).shown(), ...rest]"
"""As `app.refresh.SHOWN`, for a listener with more inputs than the hidden text box."""


def wire(shell: Shell, tab: gr.Tab, parts: Parts) -> None:
    """Attach every listener of the tab."""
    tab_of = Listeners(shell, parts)
    tab_of.wire_picture()
    tab_of.wire_beginnings()
    tab_of.wire_sheet()
    tab_of.wire_results()
    tab_of.wire_visits(tab)
    tab_of.wire_ticks()


class Listeners:
    """The tab's listeners over its components; they keep nothing themselves."""

    def __init__(self, shell: Shell, parts: Parts) -> None:
        self.shell, self.studio, self.parts = shell, shell.studio, parts
        self.panels = parts.panels
        self.form = {parts.scene, *parts.fields.values()}
        self.outputs = {*parts.panels.all, *parts.fields.values(), parts.modes}

    # ---- what the page shows

    def now(self, scene: Scene) -> Updates:
        """The panels that a scene fills, for the answer to an action."""
        return self.panels.updates(Shown(), self.drawn(scene))

    def drawn(self, scene: Scene) -> dict[str, str]:
        """The viewer and the sheet."""
        jobs, sheet = scene.look(self.studio), scene.look_at_sheet(self.studio)
        if sheet is not None and sheet.state == "done" and scene.sheet_file is None:
            try:
                scene.sheet_file = self.studio.pictures.sheet(sheet.id)
            except StudioError as error:
                sheet = replace(sheet, state="failed", message=said(str(error)))
        looks = view.viewer(scene, jobs, learned_on=scene.learned_on(self.studio, jobs))
        return {
            "viewer": render("viewer", view.state(looks)),
            "sheet": render("sheet", view.sheet(sheet, scene)),
        }

    def offered(self, scene: Scene, mixer: object) -> dict[str, str]:
        """What can be added to the mix and what is in it, what the base knows, and what was made before."""
        rows = styles.again(self.studio, Mix.read(mixer).rows)
        state = view.mixer(styles.choices(self.studio), rows)
        gallery, names = self.studio.pictures.newest(), styles.names(self.studio)
        return {
            "styles": render("styles", view.state(state)),
            "subjects": render("subjects", view.subjects(scene.suits)),
            "made-before": render("made-before", view.made_before()),
            "prompts": render("prompts", view.prompts(self.studio.preferences.prompts())),
            "begin": render("begin", view.begin(self._begun(scene))),
            "results": render("results", view.results(gallery, names, scene.leaving)),
        }

    def _begun(self, scene: Scene) -> Path | None:
        """The picture to begin with, or None."""
        try:
            return self.studio.pictures.begun(scene.image) if scene.image else None
        except StudioError:
            return None

    def read(self, data: Mapping[Any, Any]) -> Form:
        """The form from a listener's inputs; errors as in `read_form` and `styles.base_named`."""
        values = {name: data[part] for name, part in self.parts.fields.items()}
        scene: Scene = data[self.parts.scene]
        values["image"] = scene.image
        for block in set(HALVES) - set(scene.suits.halves):
            values[f"block_{block}"] = None
        base = styles.base_named(self.studio, str(values["base"] or ""), Mix.read(values["mixer"]))
        return read_form(values, base)

    def filled(self, form: Form, *names: str) -> Updates:
        """Updates that put a form's values into the page; only those named, or all."""
        values = form.values()
        return {self.parts.fields[name]: values[name] for name in names or values}

    def halves(self, suits: Suits) -> Updates:
        """The sliders that SDXL alone has, shown or not."""
        return {self.parts.fields[f"block_{name}"]: gr.Slider(visible=name in suits.halves) for name in HALVES}

    def suited(self, scene: Scene, data: dict[Any, Any]) -> Updates:
        """Let steps and scheduler follow the base that the form names.

        Of a form that held what suits the base before it becomes one that holds what suits this one; else only a
        scheduler that cannot draw with it is exchanged. What stays is not sent: it may have been changed meanwhile.
        """
        base, steps, scheduler = (self.parts.fields[name] for name in ("base", "steps", "scheduler"))
        source = str(data[base] or "").strip() or BUNDLED.key
        filled_in = data[steps], data[scheduler]
        before, now = scene.suits, scene.suits
        if source != before.source:
            scene.suits = now = styles.suits(self.studio, source)
            if (data[steps], data[scheduler]) == (before.steps, before.scheduler):
                data[steps], data[scheduler] = now.steps, now.scheduler
            elif data[scheduler] not in now.schedulers:
                data[scheduler] = now.scheduler
        chosen = {} if data[scheduler] == filled_in[1] else {"value": data[scheduler]}
        return {
            **self.halves(now),
            **({} if data[steps] == filled_in[0] else {steps: data[steps]}),
            scheduler: gr.Dropdown(choices=styles.schedulers(now), **chosen),
            self.panels.parts["subjects"]: render("subjects", view.subjects(now)),
        }

    # ---- the picture

    def wire_picture(self) -> None:
        """Making pictures, and moving strengths."""
        parts, studio = self.parts, self.studio
        fields = parts.fields

        @told
        def make(data: dict[Any, Any]) -> Updates:
            scene: Scene = data[parts.scene]
            scene.make(studio, self.read(data))
            return {**self.now(scene), parts.modes: gr.Tabs(selected="picture")}

        asking = [parts.make.click, fields["prompt"].submit, fields["negative"].submit]
        gr.on(asking, make, inputs=self.form, outputs={*self.panels.all, parts.modes}, **ACTION)

        @told
        def moved(data: dict[Any, Any]) -> Any:
            scene: Scene = data[parts.scene]
            if scene.form is None:
                return gr.skip()
            words = TEXTS.preview
            outcome = scene.move(studio, self.read(data))
            scene.hint = ""
            if outcome == "other":
                scene.hint = words.changed
            elif outcome == "slow":
                pace = scene.pace.seconds
                scene.hint = words.slow.format(time=duration(pace)) if pace else words.changed
            return self.now(scene)

        changed = fields["mixer"].changed
        changed(moved, inputs=self.form, outputs=self.panels.all, trigger_mode="always_last", **ACTION)

        @told
        def act(data: dict[Any, Any], event: gr.EventData) -> Any:
            scene: Scene = data[parts.scene]
            if event.act == "opened":
                return self.back_again(scene, str(event.job), data[visited])
            if event.act == "film":
                scene.order_film(studio, scene.look(studio))
            elif event.act == "stop":
                scene.cancel(studio)
            return self.now(scene)

        visited = self.shell.visits["preview"]
        for name in ("viewer", "sheet"):
            self.panels.parts[name].click(act, inputs={parts.scene, visited}, outputs=self.outputs, **MANY)
        parts.die.click(None, outputs=fields["seed"], js=_ROLL)

        def say_words(prompt: str, event: gr.EventData) -> str:
            words = literal(str(event.words))
            if words.casefold() in prompt.casefold():
                return prompt
            return f"{prompt.rstrip().rstrip(',')}, {words}" if prompt.strip() else words

        fields["mixer"].words(say_words, inputs=fields["prompt"], outputs=fields["prompt"], **ACTION)

        def ask_for(prompt: str, mixer: object, event: gr.EventData) -> str:
            return with_subject(prompt, str(event.item), [literal(use.trigger) for use in Mix.read(mixer).rows])

        offered = self.panels.parts["subjects"]
        offered.click(ask_for, inputs=[fields["prompt"], fields["mixer"]], outputs=fields["prompt"], **ACTION)

        @told
        def other_base(data: dict[Any, Any]) -> Any:
            return self.suited(data[parts.scene], data)

        following = {fields["steps"], fields["scheduler"]}
        halves = {fields[f"block_{name}"] for name in HALVES}
        fields["base"].change(
            other_base,
            inputs={parts.scene, fields["base"], *following},
            outputs={offered, *following, *halves},
            **ACTION,
        )

        @told
        def put_in(data: dict[Any, Any], event: gr.EventData) -> Updates:
            scene: Scene = data[parts.scene]
            scene.taken = True
            mix = Mix.read(data[fields["mixer"]])
            found = styles.find(studio, str(event.style))
            updates: Updates = {fields["mixer"]: mix.with_use(found.use).value()}
            if found.base is not None and not mix.rows:
                updates[fields["base"]] = found.base.source
            if scene.form is not None:
                scene.hint = TEXTS.preview.changed
                updates |= self.now(scene)
            return updates

        outputs = {*self.panels.all, fields["mixer"], fields["base"]}
        fields["mixer"].put_in(put_in, inputs={parts.scene, fields["mixer"]}, outputs=outputs, **ACTION)

    # ---- what to begin with: a prompt that was kept, a picture

    def wire_beginnings(self) -> None:
        """Prompts that were kept, and a picture to begin with."""
        parts, studio = self.parts, self.studio
        prompt, kept = parts.fields["prompt"], self.panels.parts["prompts"]

        def shelf() -> str:
            return render("prompts", view.prompts(studio.preferences.prompts()))

        @told
        def choose(data: dict[Any, Any], event: gr.EventData) -> Any:
            act, item = str(event.act), str(getattr(event, "item", ""))
            if act == "prompt-use":
                return {prompt: item}
            if act == "prompt-keep":
                studio.preferences.keep_prompt(str(data[prompt] or ""))
            elif act == "prompt-forget":
                studio.preferences.forget_prompt(item)
            return {kept: shelf()}

        kept.click(choose, inputs={prompt}, outputs={prompt, kept}, **MANY)

        begin = self.panels.parts["begin"]

        def begun(scene: Scene, name: str) -> Updates:
            scene.image = name
            if scene.form is not None:
                scene.hint = TEXTS.preview.changed
            return {**self.now(scene), begin: render("begin", view.begin(self._begun(scene)))}

        @told
        def bring(data: dict[Any, Any], event: gr.EventData) -> Any:
            scene: Scene = data[parts.scene]
            paths = arrived(event.files, studio.home.path / "uploads")
            try:
                if not paths:
                    raise StudioError(TEXTS.train.upload_refused)
                return begun(scene, studio.pictures.begin_with(paths[0]))
            finally:
                for path in paths:
                    path.unlink(missing_ok=True)

        @told
        def leave(data: dict[Any, Any], event: gr.EventData) -> Any:
            return begun(data[parts.scene], "") if event.act == "begin-remove" else gr.skip()

        begin.upload(bring, inputs={parts.scene}, outputs=self.panels.all, **MANY)
        begin.click(leave, inputs={parts.scene}, outputs=self.panels.all, **MANY)

    # ---- the sheet

    def wire_sheet(self) -> None:
        """Comparing many pictures in one."""
        parts, studio, axes = self.parts, self.studio, self.parts.axes

        @told
        def make(data: dict[Any, Any]) -> Updates:
            scene: Scene = data[parts.scene]
            form = self.read(data)
            rows, columns = (
                Axis(data[axes[name]], data[axes[f"{name}_written"]] or "") for name in ("rows", "columns")
            )
            title = title_of(form, styles.base_title(form.base.source))
            scene.show_sheet(studio.pictures.order(sheet_order(form, rows, columns, title)))
            return self.now(scene)

        inputs = {*self.form, *axes.values()}
        parts.make_sheet.click(make, inputs=inputs, outputs=self.panels.all, **ACTION)

    # ---- made before

    def wire_results(self) -> None:
        """Taking up what was made before, or removing it."""
        parts, studio = self.parts, self.studio
        mixer = parts.fields["mixer"]

        @told
        def act(data: dict[Any, Any], event: gr.EventData) -> Updates:
            scene: Scene = data[parts.scene]
            job_id = str(event.id)
            if event.act == "use":
                job = studio.pictures.view(job_id)
                if job.order.note == SHEET:
                    scene.show_sheet(job.id)
                    return {**self.now(scene), parts.modes: gr.Tabs(selected="sheet")}
                return {**self.take_up(scene, job), parts.modes: gr.Tabs(selected="picture")}
            if event.act == "remove":
                scene.leaving[job_id] = time.time() + UNDO_SECONDS
            elif event.act == "undo":
                scene.leaving.pop(job_id, None)
            return self.panels.updates(Shown(), self.offered(scene, data[mixer]))

        self.panels.parts["results"].click(act, inputs={parts.scene, mixer}, outputs=self.outputs, **MANY)

    def take_up(self, scene: Scene, job: JobView) -> Updates:
        """Show a job again, and its settings in the form."""
        return self.shown(scene, job, *self.recalled(job))

    def recalled(self, job: JobView) -> tuple[Form, Suits]:
        """The form of a job that was made before, and what suits its base."""
        form = styles.form_again(self.studio, job.order)
        return form, styles.suits(self.studio, form.base.source)

    def shown(self, scene: Scene, job: JobView, form: Form, suits: Suits) -> Updates:
        """A job in the viewer, and its form."""
        scene.take_up(self.studio, form, job.id)
        scene.suits = suits
        scheduler = form.settings.scheduler
        offered = gr.Dropdown(choices=styles.schedulers(suits, also=scheduler), value=scheduler)
        filled = self.filled(form)
        for name in HALVES:
            field = self.parts.fields[f"block_{name}"]
            filled[field] = gr.Slider(value=filled[field], visible=name in suits.halves)
        return {**filled, self.parts.fields["scheduler"]: offered, **self.now(scene)}

    # ---- arriving

    def back_again(self, scene: Scene, named: str, visit: Visit) -> Any:
        """The page was opened: show the job in its address, or the newest; without any the newest style is ready.

        Args:
            visit: of another tab; a style that it sends here is what the form is filled with, and nothing else.
        """
        studio = self.studio
        job, cards = _job_to_show(studio, named), studio.library.cards()
        if visit.item or not (job or cards):
            return gr.skip()
        fill = (
            partial(self.shown, scene, job, *self.recalled(job))
            if job is not None
            else partial(self.ready, styles.find(studio, cards[0].id))
        )
        # Looking took a moment, in which the visitor may have begun; what they did stays.
        return gr.skip() if scene.taken else fill()

    def ready(self, found: styles.Found) -> Updates:
        """A style in the mixer of a form that is otherwise as it was."""
        put = self.filled(Form(found.prompt, Mix((found.use,))), "mixer", *(["prompt"] if found.prompt else []))
        return put | ({self.parts.fields["base"]: found.base.source} if found.base else {})

    def wire_visits(self, tab: gr.Tab) -> None:
        """Another tab sends a style here."""
        parts, studio, shell = self.parts, self.studio, self.shell
        fields = parts.fields

        @told
        def visited(data: dict[Any, Any]) -> Any:
            visit: Visit = data[shell.visits["preview"]]
            scene: Scene = data[parts.scene]
            if not visit.item:
                return gr.skip()
            scene.taken = True
            found = styles.find(studio, visit.item, visit.step)
            data[fields["prompt"]] = visit.prompt or found.prompt or data[fields["prompt"]]
            data[fields["mixer"]] = Mix((found.use,)).value()
            if found.base is not None:
                data[fields["base"]] = found.base.source
            followed = self.suited(scene, data)
            form = self.read(data)
            scene.make(studio, form)
            put = self.filled(form, "prompt", "mixer", "base") | followed
            return {**put, **self.now(scene), parts.modes: gr.Tabs(selected="picture")}

        shell.visits["preview"].change(
            visited, inputs={shell.visits["preview"], *self.form}, outputs=self.outputs, **ACTION
        )

        def offer_bases() -> Any:
            return gr.Dropdown(choices=styles.bases(studio))

        tab.select(offer_bases, outputs=fields["base"], **POLL)

    # ---- following

    def wire_ticks(self) -> None:
        """What comes while the tab is open: pictures twice a second, names and results every other second."""
        parts, studio = self.parts, self.studio
        mixer, written = parts.fields["mixer"], (parts.fields["prompt"], parts.fields["negative"])

        def tick(data: dict[Any, Any]) -> Any:
            scene: Scene = data[parts.scene]
            try:
                scene.go_on(studio, scene.look(studio))
            except PatinaError as error:
                scene.film, scene.hint = "offer", said(str(error))
            return answered(self.panels.updates(Shown.parse(data[parts.page]), self.drawn(scene)))

        def look_around(data: dict[Any, Any]) -> Any:
            scene: Scene = data[parts.scene]
            scene.sweep(studio)
            prompt, negative = (str(data[field] or "") for field in written)
            drawn = {
                **self.offered(scene, data[mixer]),
                "tokens": render("tokens", view.tokens(prompt, negative, scene.suits)),
            }
            return answered(self.panels.updates(Shown.parse(data[parts.page]), drawn))

        follow(self.shell.ticker("preview", 0.5), tick, {parts.page, parts.scene}, self.panels.all)
        looking = {parts.page, parts.scene, mixer, *written}
        follow(self.shell.ticker("preview", 2.0), look_around, looking, self.panels.all)


def follow(timer: gr.Timer, function: Callable[..., Any], inputs: set[Any], outputs: set[Any]) -> None:
    """Call a function at every tick with what the page shows and other inputs; `page` is the first of them."""
    timer.tick(function, inputs=inputs, outputs=outputs, js=_SHOWN_FIRST, **POLL)


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

"""The studio for programs: eight calls with stable names, usable with gradio_client; ``docs/api.md`` shows them.

Everything else that the page does is private. A call answers with plain values or files, and a `PatinaError` arrives
at the caller as its sentence. Nothing here waits for a training; only ``sample`` waits, for its pictures.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gradio as gr
from pydantic import ValidationError

from trainer.config import FileLayout, sentence
from trainer.errors import ConfigError, PatinaError, StudioError
from trainer.preview.order import PreviewOrder, PreviewRow, PreviewSettings, StyleUse
from trainer.studio.views import RunSummary, RunView, StyleCard

if TYPE_CHECKING:
    from trainer.studio.studio import Studio

NAMES = ("create_run", "status", "cancel", "pause", "resume", "sample", "list", "download")
WAIT_SECONDS = 0.2
MOST_ROWS = 64


def build(studio: Studio) -> None:
    """Make the endpoints; called inside the page's ``gr.Blocks``."""
    public: dict[str, Any] = {"api_visibility": "public", "show_progress": "hidden", "concurrency_limit": None}
    with gr.Column(visible=False):
        files = gr.File(file_count="multiple", type="filepath", label="Images and caption files")
        run = gr.Textbox(label="Run")
        style = gr.Textbox(label="Style")
        name = gr.Textbox(value="", label="Name")
        trigger = gr.Textbox(value="", label="Trigger")
        captions = gr.JSON(label="Captions by file name")
        settings = gr.JSON(label="Settings by dotted path")
        start = gr.Checkbox(value=True, label="Train at once")
        prompt = gr.Textbox(label="Prompt")
        styles = gr.JSON(label="Styles")
        strengths = gr.JSON(label="Strengths, one entry a picture")
        negative = gr.Textbox(value="", label="Negative prompt")
        seed = gr.Number(value=0, precision=0, label="Seed")
        layout = gr.Textbox(value="kohya", label="Layout")
        answer = gr.JSON(label="Answer")
        pictures = gr.File(file_count="multiple", label="Pictures")
        file = gr.File(label="Style file")
        call = gr.Button()

    calls = Calls(studio, studio.home.path / "uploads")
    call.click(
        _said(calls.create_run),
        inputs=[files, name, trigger, captions, settings, start],
        outputs=answer,
        api_name="create_run",
        **public,
    )
    for verb in (calls.cancel, calls.pause, calls.resume):
        call.click(_said(verb), inputs=run, outputs=answer, api_name=verb.__name__, **public)
    call.click(_said(calls.status), inputs=run, outputs=answer, api_name="status", queue=False, **public)
    call.click(_said(calls.overview), inputs=[], outputs=answer, api_name="list", queue=False, **public)
    call.click(
        calls.sample,
        inputs=[prompt, styles, strengths, negative, seed, settings],
        outputs=pictures,
        api_name="sample",
        **public,
    )
    call.click(_said(calls.download), inputs=[style, layout], outputs=file, api_name="download", **public)


@dataclass(frozen=True)
class Calls:
    """The calls, over a studio and the folder that Gradio serves files from."""

    studio: Studio
    offers: Path

    def create_run(
        self,
        images: Sequence[str] | None,
        name: str = "",
        trigger: str = "",
        captions: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        start: bool = True,
    ) -> dict[str, Any]:
        """Make a run from images and put it into the queue.

        Args:
            images: image files, and caption files (``.txt``) named like them.
            captions: file name -> caption, for images without a caption file.
            settings: dotted setting -> value, such as ``{"train.steps": 100}``.
            start: False leaves it as a draft.

        Returns:
            ``run``: its id; ``images``: how many were taken; ``refused``: [name, sentence] of each that was not.
        """
        values: dict[str, Any] = dict(settings or {})
        values.update({key: text for key, text in (("name", name), ("trigger", trigger)) if text})
        draft = self.studio.drafts.create()
        try:
            self.studio.drafts.update(draft, values)
            report = self.studio.drafts.add_images(draft, list(images or []))
            ids = {image.name: image.id for image in self.studio.drafts.view(draft).images}
            unknown = sorted(set(captions or {}) - set(ids))
            if unknown:
                raise ConfigError(f"captions names {unknown[0]!r}, but no such image was sent.")
            self.studio.drafts.set_captions(draft, {ids[key]: text for key, text in (captions or {}).items()})
            if start:
                self.studio.runs.enqueue(draft)
        except PatinaError:
            self.studio.runs.delete(draft)
            raise
        finally:
            self._taken(images or [])
        return {"run": draft, "images": len(report.added), "refused": [list(entry) for entry in report.refused]}

    def _taken(self, files: Sequence[str]) -> None:
        """The studio has its own copies: uploads need not lie there until the next start."""
        for path in map(Path, files):
            if path.resolve().is_relative_to(self.offers.resolve()):
                path.unlink(missing_ok=True)

    def status(self, run: str) -> dict[str, Any]:
        """Where a run stands: ``state``, ``step`` of ``steps``, ``seconds_left``, the last ``loss``, ``error``, ..."""
        return _run_facts(self.studio.runs.view(run))

    def cancel(self, run: str) -> dict[str, Any]:
        """End a run without a file; a queued one becomes a draft again. Answers with its status."""
        self.studio.runs.cancel(run)
        return self.status(run)

    def pause(self, run: str) -> dict[str, Any]:
        """Save a run and let it wait. Answers with its status, which changes when the worker has saved."""
        self.studio.runs.pause(run)
        return self.status(run)

    def resume(self, run: str) -> dict[str, Any]:
        """Go on with a run that was paused, cancelled or failed. Answers with its status."""
        self.studio.runs.resume(run)
        return self.status(run)

    def overview(self) -> dict[str, Any]:
        """All ``runs`` (in training, the queue in order, the others) and the library's ``styles``."""
        return {
            "runs": [_summary_facts(summary) for summary in self.studio.runs.all()],
            "styles": [_style_facts(card) for card in self.studio.library.cards()],
        }

    def download(self, style: str, layout: str = "kohya") -> str:
        """A style's file under its name, in the ``kohya`` (default) or ``diffusers`` layout."""
        if layout not in ("kohya", "diffusers"):
            raise ConfigError(f"layout is {layout!r}, but should be 'kohya' or 'diffusers'.")
        return str(_offered(self.offers, self.studio.library.download(style, cast(FileLayout, layout))))

    async def sample(
        self,
        prompt: str,
        styles: Sequence[Any] | None = None,
        strengths: Sequence[Any] | None = None,
        negative: str = "",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Make pictures and wait for them, without holding a thread; the arguments are those of `ordered`."""
        try:
            order = ordered(prompt, styles, strengths, negative, seed, settings)
            job_id = await asyncio.to_thread(self.studio.pictures.order, order)
            while (job := await asyncio.to_thread(self.studio.pictures.view, job_id)).state in ("queued", "working"):
                await asyncio.sleep(WAIT_SECONDS)
            if job.state != "done":
                raise StudioError(job.message or "The pictures were not made.")
            made = sorted(job.pictures, key=lambda picture: picture.index)
            return [str(_offered(self.offers, picture.path)) for picture in made]
        except PatinaError as error:
            raise gr.Error(str(error), print_exception=False) from None


def ordered(
    prompt: str,
    styles: Sequence[Any] | None = None,
    strengths: Sequence[Any] | None = None,
    negative: str = "",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> PreviewOrder:
    """The pictures that a call of ``sample`` asks for.

    Args:
        styles: ids of finished runs, of imported styles, or of the run in training; or ``{"style": id, "step": 200}``
            for a checkpoint. Without any, the base itself is asked.
        strengths: one picture for each entry; an entry is a number for one style, or a list with one for each. Without
            any, one picture at strength 1.
        settings: ``steps``, ``guidance``, ``scheduler``, ``width``, ``height`` as in `PreviewSettings`.

    Raises:
        ConfigError: something in it is missing, unknown or out of range.
    """
    values = dict(settings or {})
    unknown = sorted(set(values) - set(PreviewSettings.model_fields))
    if unknown:
        raise ConfigError(f"There is no setting {unknown[0]!r} for pictures.")
    try:
        used = tuple(StyleUse.model_validate({"style": e} if isinstance(e, str) else e) for e in styles or ())
        asked = list(strengths) if strengths else [[1.0] * len(used)]
        rows = [
            PreviewRow(prompt=prompt, negative=negative, seed=int(seed), strengths=_strengths(entry, len(used)))
            for entry in asked
        ]
        if len(rows) > MOST_ROWS:
            raise ConfigError(f"strengths asks for {len(rows)} pictures, but {MOST_ROWS} at once are allowed.")
        return PreviewOrder(styles=used, rows=tuple(rows), settings=PreviewSettings.model_validate(values), note="api")
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None


def _strengths(entry: Any, styles: int) -> tuple[float, ...]:
    row = entry if isinstance(entry, list) else [entry]
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in row):
        raise ConfigError(f"strengths holds {entry!r}, but should hold numbers, or lists of numbers.")
    if len(row) != styles:
        raise ConfigError(f"strengths gives {len(row)} values to a picture of {styles} styles.")
    return tuple(float(value) for value in row)


def _said(function: Callable[..., Any]) -> Callable[..., Any]:
    """A call whose `PatinaError` reaches the client as its sentence."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except PatinaError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return call


def _offered(uploads: Path, path: Path) -> Path:
    """The file where Gradio may serve it from; a second name for the same bytes where the disk allows that."""
    place = uploads / "offered" / secrets.token_hex(8)
    place.mkdir(parents=True)
    target = place / path.name
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
    return target


def _run_facts(run: RunView) -> dict[str, Any]:
    return {
        "run": run.id,
        "name": run.name,
        "state": "disk full" if run.waits else run.state,
        "step": run.step,
        "steps": run.steps,
        "loss": run.losses[-1] if run.losses else None,
        "samples_per_second": run.samples_per_second,
        "seconds_left": run.seconds_left,
        "queue_place": run.queue_place,
        "samples": [{"step": s.step, "prompt": s.prompt} for s in run.samples],
        "verified": list(run.verified),
        "opens": list(run.opens),
        "error": run.error or run.waits,
    }


def _summary_facts(run: RunSummary) -> dict[str, Any]:
    return {
        "run": run.id,
        "name": run.name,
        "state": "disk full" if run.waits else run.state,
        "step": run.step,
        "steps": run.steps,
        "queue_place": run.queue_place,
    }


def _style_facts(card: StyleCard) -> dict[str, Any]:
    return {
        "style": card.id,
        "name": card.name,
        "trigger": card.trigger,
        "base": card.base,
        "family": card.family,
        "rank": card.rank,
        "size_bytes": card.size_bytes,
        "layout": card.layout,
    }

"""What the buttons and fields of the Train tab do: one method an action, each a few calls of the studio.

A method gets the run that the page shows and the event's data, and returns an `Answer`. Data comes from a browser and
is trusted in nothing: ids are checked by the studio, settings by the tree of settings, uploads by `Actions.upload`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from app.html import el
from app.texts import TEXTS, said
from app.train.beside import beside
from app.train.dials import DIALS, at, preset_values
from app.train.settings import form_fields
from app.train.writer import question
from app.uploads import arrived, folders_of
from trainer.bases.families import FAMILIES
from trainer.bases.prompts import literal
from trainer.captioning.style_words import STYLE_WORDS
from trainer.data.captions import compose
from trainer.data.folder import masked_by
from trainer.errors import StudioError
from trainer.studio.drafts import DEFAULT_NAME

if TYPE_CHECKING:
    from trainer.bases.describe import BaseInfo
    from trainer.studio.studio import Studio
    from trainer.studio.views import DraftView, PlanView, RunSummary


@dataclass(frozen=True)
class Answer:
    """What an action leads to.

    Attributes:
        run: show this run now; None stays.
        notice: a line about what happened, possibly with a button to undo it.
        leave: another tab to open, with the run.
        beside: a card above the run, until the next action.
    """

    run: str | None = None
    notice: Markup | None = None
    leave: Literal["preview", "library"] | None = None
    beside: Markup | None = None


STAY = Answer()
PART = 8
"""Files of an upload that are read between two tellings of how far it is."""


@dataclass
class Bases:
    """What is known about bases that were looked at, so that a page can show it without asking the network again."""

    studio: Studio
    known: dict[tuple[str, str, str], BaseInfo] = field(default_factory=dict)

    def look(self, draft: DraftView) -> BaseInfo:
        """Look at the draft's base now; may take seconds for one on the hub."""
        source, revision, variant = key = _base_of(draft)
        self.known[key] = self.studio.bases.check(source, revision or None, variant or None)
        return self.known[key]

    def seen(self, draft: DraftView) -> BaseInfo | None:
        """What was found at the last look; the bundled base is always known."""
        key = _base_of(draft)
        if key not in self.known and key[0] == "bundled":
            self.look(draft)
        return self.known.get(key)

    def preset_values(self, draft: DraftView, plan: PlanView) -> dict[str, float]:
        """What the preset would choose for this draft's base, for the dials."""
        found = self.seen(draft)
        family = FAMILIES.get((found and found.family) or "", FAMILIES["sd1"])
        return preset_values(family.presets[at(draft.settings, "train.preset") or "balanced"], plan.images)


def _base_of(draft: DraftView) -> tuple[str, str, str]:
    settings = draft.settings
    source = str(at(settings, "base.source") or "bundled")
    return source, str(at(settings, "base.revision") or ""), str(at(settings, "base.variant") or "")


class Actions:
    """The actions, over a studio and the folder that uploads arrive in."""

    def __init__(self, studio: Studio, uploads: Path) -> None:
        self.studio = studio
        self.bases = Bases(studio)
        self.reading: dict[str, tuple[int, int]] = {}
        """Run -> (files read, of how many) of the upload that is taken in at the moment."""
        self._uploads = uploads
        self._making = threading.Lock()
        self._fields = {entry.path: entry for entry in form_fields()}

    def landing(self, wanted: str = "") -> str:
        """The run to show a visitor: the one in the address, else the one in training, else the newest."""
        summaries = self.studio.runs.all()
        if any(summary.id == wanted for summary in summaries):
            return wanted
        for states in (("training",), ("queued", "draft"), ("paused", "finished", "failed", "cancelled")):
            for summary in summaries:
                if summary.state in states:
                    return summary.id
        return self.new_draft()

    def new_draft(self) -> str:
        """A draft without images: one that is already there, else a new one."""
        # A page's first tick may come while its arrival is still answered; both must get the same draft.
        with self._making:
            for summary in self.studio.runs.all():
                if untouched(summary):
                    return summary.id
            return self.studio.drafts.create()

    def click(self, run: str, data: Mapping[str, Any]) -> Answer:
        """Do what the element's ``data-act`` says.

        Raises:
            StudioError: there is no such action, or it cannot be done.
        """
        name = "click_" + str(data.get("act", "")).replace("-", "_")
        action = getattr(self, name, None)
        if action is None:
            raise StudioError(f"The page asked for {data.get('act')!r}, which this studio does not know. Reload it.")
        answer: Answer = action(run, data)
        return answer

    # ---- images

    def click_samples(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(run=self.studio.drafts.create_from_samples(str(data["item"])))

    def click_samples_train(self, run: str, data: Mapping[str, Any]) -> Answer:
        made = self.studio.drafts.create_from_samples(str(data["item"]))
        self.studio.runs.enqueue(made)
        return Answer(run=made)

    def upload(self, run: str, files: Sequence[Mapping[str, Any]]) -> Answer:
        """Take uploaded files into the draft; each must lie where uploads arrive, whatever the page says."""
        paths = arrived(files, self._uploads)
        if len(paths) < len(files) and not paths:
            raise StudioError(TEXTS.train.upload_refused)
        folders = folders_of(files)
        refused: list[tuple[str, str]] = []
        done = 0
        try:
            for part in in_parts(paths):
                self.reading[run] = (done, len(paths))
                inside = {path: folders[path] for path in part if path in folders}
                refused += self.studio.drafts.add_images(run, part, inside).refused
                done += len(part)
        finally:
            self.reading.pop(run, None)
            for path in paths:
                path.unlink(missing_ok=True)
        if not refused:
            return STAY
        lines = [
            el("li", said(sentence) if name in sentence else f"{name}: {said(sentence)}") for name, sentence in refused
        ]
        return Answer(notice=el("div", el("p", TEXTS.train.not_taken), el("ul", lines)))

    def click_take_set(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.drafts.add_set(run, str(data["fields"]["set"]))
        return STAY

    def click_remove(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.drafts.remove_image(run, str(data["image"]))
        return STAY

    def click_remedy(self, run: str, data: Mapping[str, Any]) -> Answer:
        for image in self.studio.drafts.view(run).images:
            if any(finding.kind == data["kind"] for finding in image.findings):
                self.studio.drafts.remove_image(run, image.id)
        return STAY

    def click_restore_image(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.drafts.restore_image(run, str(data["image"]))
        return STAY

    def click_restore_images(self, run: str, data: Mapping[str, Any]) -> Answer:
        for image in self.studio.drafts.view(run).removed:
            self.studio.drafts.restore_image(run, image.id)
        return STAY

    def click_crop(self, run: str, data: Mapping[str, Any]) -> Answer:
        try:
            left, top, right, bottom = (float(share) for share in data["box"])
        except (KeyError, TypeError, ValueError):
            raise StudioError(TEXTS.train.bad_crop) from None
        self.studio.drafts.crop_image(run, str(data["image"]), (left, top, right, bottom))
        return STAY

    def click_uncrop(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.drafts.crop_image(run, str(data["image"]), None)
        return STAY

    def click_focus(self, run: str, data: Mapping[str, Any]) -> Answer:
        try:
            x, y = (float(share) for share in data["at"])
        except (KeyError, TypeError, ValueError):
            raise StudioError(TEXTS.train.bad_focus) from None
        self.studio.drafts.focus_image(run, str(data["image"]), (x, y))
        return STAY

    # ---- captions

    def click_captions_add(self, run: str, data: Mapping[str, Any]) -> Answer:
        return _changed(self.studio.drafts.captions_add(run, str(data["fields"]["words"])))

    def click_captions_trigger(self, run: str, data: Mapping[str, Any]) -> Answer:
        return _changed(
            self.studio.drafts.captions_add(run, str(self.studio.drafts.view(run).settings.get("trigger", "")))
        )

    def click_captions_replace(self, run: str, data: Mapping[str, Any]) -> Answer:
        fields = data["fields"]
        return _changed(self.studio.drafts.captions_replace(run, str(fields["find"]), str(fields["replacement"])))

    def click_captions_names(self, run: str, data: Mapping[str, Any]) -> Answer:
        return _changed(self.studio.drafts.captions_from_names(run))

    def click_captions_write(self, run: str, data: Mapping[str, Any]) -> Answer:
        return self._write_captions(run, *_writer_of(data["fields"]), anew=False)

    def click_captions_write_all(self, run: str, data: Mapping[str, Any]) -> Answer:
        return self._write_captions(run, *_writer_of(data["fields"]), anew=True)

    def click_captions_fetch(self, run: str, data: Mapping[str, Any]) -> Answer:
        model, length, anew = str(data["model"]), str(data["length"]), "anew" in data
        return self._write_captions(run, model, length, anew=anew, download=True)

    def click_captions_stop(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.captioning.cancel(run)
        return STAY

    def click_captions_usual_words(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.preferences.keep_style_words("\n".join(STYLE_WORDS))
        return STAY

    def _write_captions(self, run: str, model: str, length: str, *, anew: bool, download: bool = False) -> Answer:
        elsewhere = self.studio.captioning.start(run, model, length, anew=anew, download=download)
        return STAY if elsewhere is None else Answer(notice=question(elsewhere, model, length, anew=anew))

    # ---- settings

    def set(self, run: str, data: Mapping[str, Any]) -> None:
        """A field was changed: a caption, a dial, the base, or a setting by its dotted path."""
        what, value = str(data.get("set", "")), data.get("value")
        if what == "caption":
            self.studio.drafts.set_captions(run, {str(data["image"]): str(value)})
        elif what == "repeats-of":
            times = str(value).strip()
            self.studio.drafts.repeat_image(run, str(data["image"]), int(times) if times.isdecimal() else 0)
        elif what == "style-words":
            self.studio.preferences.keep_style_words(str(value))
        elif what == "caption-writer":
            self.studio.preferences.keep_caption_writer(offered=str(value))
        elif what == "caption-writer-named":
            self.studio.preferences.keep_caption_writer(named=str(value))
        elif what == "base":
            if value:
                self._take_base(run, str(value))
            else:
                # "Another model": the field is shown while its source is none of the offered ones.
                self.studio.drafts.update(run, {"base.source": _ANOTHER})
        elif what == "base.here":
            if value:
                self._take_base(run, str(value))
        elif what == "base.source":
            self._take_base(run, str(value).strip() or _ANOTHER)
        elif what.startswith("dial."):
            self._turn(run, what.removeprefix("dial."), int(float(str(value))))
        elif what == "train.preset":
            # A pace is chosen as a whole: the dials go back to its middle.
            reset: dict[str, Any] = {dial.setting: None for dial in DIALS}
            self.studio.drafts.update(run, {**reset, "train.preset": value})
        else:
            entry = self._fields.get(what)
            self.studio.drafts.update(run, {what: entry.read(value) if entry else str(value)})

    def click_subject(self, run: str, data: Mapping[str, Any]) -> Answer:
        settings = self.studio.drafts.view(run).settings
        prompts = list(at(settings, "samples.prompts") or ())
        prompt = compose(str(data["item"]), literal(str(settings.get("trigger") or "")))
        if prompt not in prompts:
            self.studio.drafts.update(run, {"samples.prompts": [*prompts, prompt]})
        return STAY

    def _turn(self, run: str, name: str, position: int) -> None:
        dial = next((dial for dial in DIALS if dial.name == name), None)
        if dial is None or not -2 <= position <= 2:
            raise StudioError(f"There is no control {name!r} with a position {position}.")
        preset = self.bases.preset_values(self.studio.drafts.view(run), self.studio.drafts.plan(run))
        self.studio.drafts.update(run, {dial.setting: dial.value(preset[dial.setting], position)})

    def _take_base(self, run: str, source: str) -> None:
        self.studio.drafts.update(run, {"base.source": source})
        if source != _ANOTHER:
            self.bases.look(self.studio.drafts.view(run))

    def click_check_base(self, run: str, data: Mapping[str, Any]) -> Answer:
        self._take_base(run, str(data["fields"]["source"]).strip() or _ANOTHER)
        return STAY

    def click_reset_settings(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.drafts.update(run, dict.fromkeys(self._fields))
        return STAY

    # ---- runs

    def click_train(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.enqueue(run)
        return STAY

    def click_new(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(run=self.new_draft())

    def click_dismiss(self, run: str, data: Mapping[str, Any]) -> Answer:
        return STAY

    def click_open(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(run=str(data["item"]))

    def click_again(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(run=self.studio.drafts.duplicate(run))

    def click_leave_out(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(run=self.studio.drafts.duplicate(run, without=str(data["image"])))

    def click_open_origin(self, run: str, data: Mapping[str, Any]) -> Answer:
        origin = self.studio.runs.origin(run)
        if origin is None or all(summary.id != origin.run for summary in self.studio.runs.all()):
            raise StudioError(TEXTS.train.origin_gone)
        return Answer(run=origin.run)

    def click_compare(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(beside=beside(self.studio.runs.compared(run, str(data["item"]))))

    def click_pause(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.pause(run)
        return STAY

    def click_resume(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.resume(run)
        return STAY

    def click_resume_without(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.resume(run, changed_images="leave_out")
        return STAY

    def click_stop(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.stop_and_keep(run)
        return STAY

    def click_judge(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.judge(run)
        return STAY

    def click_vote(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.vote(run, int(data["number"]), str(data["better"]))
        return STAY

    def click_keep(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.judge(run, keep=(int(data["step"]), float(data["strength"])))
        return STAY

    def click_cancel(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.cancel(run)
        return STAY

    def click_unqueue(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.cancel(str(data.get("item") or run))
        return STAY

    def click_move(self, run: str, data: Mapping[str, Any]) -> Answer:
        self.studio.runs.move(str(data["item"]), int(data["to"]))
        return STAY

    def click_delete(self, run: str, data: Mapping[str, Any]) -> Answer:
        item = str(data["item"])
        name = next((summary.name for summary in self.studio.runs.all() if summary.id == item), "")
        self.studio.runs.delete(item)
        words = TEXTS.train
        notice = el(
            "p",
            words.deleted.format(name=name or words.untitled),
            " ",
            el("button", words.undo, type="button", class_="small", data_act="undelete", data_item=item),
        )
        return Answer(run=self.landing() if item == run else None, notice=notice)

    def click_undelete(self, run: str, data: Mapping[str, Any]) -> Answer:
        item = str(data["item"])
        self.studio.runs.restore(item)
        return Answer(run=item)

    def click_try(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(leave="preview")

    def click_preview(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(leave="preview")

    def click_share(self, run: str, data: Mapping[str, Any]) -> Answer:
        return Answer(leave="library")


def untouched(summary: RunSummary) -> bool:
    """Whether a draft is as it was made: without images and a name. One is kept for whoever begins a style."""
    return summary.state == "draft" and summary.thumbnail is None and summary.name == DEFAULT_NAME


def in_parts(paths: Sequence[Path]) -> list[list[Path]]:
    """An upload in parts, so that one can say how far it is; captions and masks stay with their images."""
    if any(path.suffix == ".jsonl" for path in paths):
        return [list(paths)]
    parts: list[list[Path]] = [[]]
    for _, group in groupby(sorted(paths, key=_stem), key=_stem):
        if len(parts[-1]) >= PART:
            parts.append([])
        parts[-1] += group
    return parts


def _stem(path: Path) -> str:
    return (masked_by(path) or path.stem).casefold()


def _writer_of(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The model that was chosen, or named instead of it, and the length of its captions."""
    model, _, length = str(fields["model"]).partition(" ")
    return str(fields.get("other") or "").strip() or model, length


_ANOTHER = "owner/name"
"""Stands for a model that is still to be named; no check is made of it."""


def _changed(count: int) -> Answer:
    words = TEXTS.train
    said = words.changed_none if not count else words.changed_one if count == 1 else words.changed.format(count=count)
    return Answer(notice=el("p", said))

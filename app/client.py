"""What the interface calls: one `Studio` per app process, over the studio folder and its worker.

Every method may be called from any thread, returns plain values (`trainer.studio.views`) and, unless it says
otherwise, answers at once. Errors are `trainer.errors.PatinaError`: one sentence to show as it is.
Nothing here imports torch; models live in the worker process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from trainer.config import FileLayout
from trainer.studio.views import (
    AddReport,
    BaseView,
    DraftView,
    JobView,
    MachineView,
    PlanView,
    PreviewOrder,
    RunSummary,
    RunView,
    SampleSet,
    StyleCard,
    StyleView,
)


class Studio:
    """The open studio. Use as a context manager, or call `close`: then the worker saves what it does and ends."""

    def __init__(self, home: Path | None = None, *, idle_seconds: float = 300.0, address: str = "") -> None:
        """Open the studio folder and go on with what was running when it was last closed.

        Args:
            home: the studio folder; None is the user's (``PATINA_HOME``).
            idle_seconds: after so long without work the worker frees the base's memory.
            address: where this studio is served, told to whoever tries to open the folder a second time.

        Raises:
            StudioError: another studio has the folder open, or it cannot be written.
        """

    def close(self) -> None:
        """Let the worker save and end; runs in training go on at the next start. Waits for it, at most 30 s."""

    def __enter__(self) -> Studio: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    # ---- drafts

    def sample_sets(self) -> list[SampleSet]:
        """Styles that come along, for the first visit."""

    def create_draft(self, settings: Mapping[str, Any] | None = None) -> str:
        """A new draft; ``settings`` as in `update_draft`. Returns its id."""

    def create_from_samples(self, name: str) -> str:
        """A new draft filled with a sample set's images and captions, ready to train. Returns its id."""

    def draft(self, run_id: str) -> DraftView:
        """A draft (or the images and settings of any run) with findings for every image."""

    def add_images(self, run_id: str, files: Sequence[str | Path]) -> AddReport:
        """Take uploaded files into a draft: decoded and re-encoded in a child process with limits.

        ``.txt`` files among them become captions of the images of the same name. Takes up to seconds.
        """

    def remove_image(self, run_id: str, image_id: str) -> None:
        """Take an image out of a draft; `restore_image` brings it back with its caption."""

    def restore_image(self, run_id: str, image_id: str) -> None:
        """Bring back an image that was taken out."""

    def set_captions(self, run_id: str, captions: Mapping[str, str]) -> None:
        """Set captions by image id; images that are not named keep theirs."""

    def captions_add(self, run_id: str, words: str) -> int:
        """Put words (a trigger, say) behind every caption that lacks them; returns how many changed."""

    def captions_replace(self, run_id: str, find: str, replacement: str) -> int:
        """Replace text in all captions; returns how many changed."""

    def captions_from_names(self, run_id: str) -> int:
        """Fill empty captions from meaningful file names; returns how many changed."""

    def token_counts(self, run_id: str) -> dict[str, tuple[int, int]]:
        """Image id -> (tokens of caption with trigger, how many the base's text encoder reads)."""

    def update_draft(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Set settings by dotted path, e.g. ``{"optim.learning_rate": 1e-4}``; None resets to *chosen for you*.

        Raises:
            ConfigError: names the field, the value and what is allowed; nothing is changed then.
        """

    def plan(self, run_id: str) -> PlanView:
        """What the draft would do: steps, expected time, memory against the machine, disk space."""

    # ---- runs

    def runs(self) -> list[RunSummary]:
        """All runs: in training, then the queue in order, then the others, newest first."""

    def active(self) -> RunSummary | None:
        """The run in training, for the chip on every tab."""

    def snapshot(self, run_id: str) -> RunView:
        """Everything about one run; cheap enough for a timer."""

    def enqueue(self, run_id: str) -> None:
        """Train a draft as soon as the worker is free.

        Raises:
            ConfigError, DatasetError, StudioError: it cannot start; nothing is changed then.
        """

    def move(self, run_id: str, index: int) -> None:
        """Move a queued run to a place in the queue, 0 being the next."""

    def pause(self, run_id: str) -> None:
        """Save and wait; in the queue, step aside."""

    def resume(self, run_id: str) -> None:
        """Go on with a paused, failed or cancelled run."""

    def stop_and_keep(self, run_id: str) -> None:
        """End a run (in training or paused) now and export what it has learned as finished."""

    def cancel(self, run_id: str) -> None:
        """End a run without a file; what it saved is kept until it is deleted. A queued draft becomes a draft again."""

    def rename(self, run_id: str, name: str) -> None:
        """Give a run or an imported style another name, which is also that of its downloads."""

    def duplicate(self, run_id: str) -> str:
        """A new draft with a run's settings, images and captions. Returns its id."""

    def delete(self, item_id: str) -> None:
        """Put a run or an imported style in the trash; `restore` takes it back. The trash is emptied after 30 days."""

    def restore(self, item_id: str) -> None:
        """Take a deleted run or style back."""

    # ---- pictures

    def preview(self, order: PreviewOrder) -> str:
        """Start making pictures; returns the job's id. Pictures made before with the same settings are reused."""

    def job(self, job_id: str) -> JobView:
        """A job's progress and pictures."""

    def cancel_job(self, job_id: str) -> None:
        """Stop a job within one denoising step; what is finished of it is kept."""

    def gallery(self, limit: int = 60) -> list[JobView]:
        """Jobs that have pictures, newest first."""

    def delete_job(self, job_id: str) -> None:
        """Remove a job and its pictures from the gallery."""

    def sheet(self, job_id: str) -> Path:
        """The job's pictures as one labelled PNG.

        Raises:
            StudioError: it is not done, or was not ordered as a sheet.
        """

    # ---- library

    def library(self, search: str = "", family: str = "") -> list[StyleCard]:
        """Finished and imported styles, newest first; ``search`` in name and trigger, ``family`` a key of the bases."""

    def style(self, style_id: str) -> StyleView:
        """A style opened."""

    def import_style(self, path: Path, name: str = "") -> str:
        """Take a style file from elsewhere into the library, checked by the worker; returns its id. Takes seconds.

        Raises:
            AdapterFileError: it is no style file that can be used, with the reason.
        """

    def download(self, style_id: str, layout: FileLayout = "kohya") -> Path:
        """The style's file under its name, in the wanted layout. Another layout than its own takes seconds."""

    # ---- environment

    def check_base(self, source: str, revision: str | None = None, variant: str | None = None) -> BaseView:
        """What a base is, or what is wrong with it, without loading it. May ask the network for a hub id."""

    def machine(self) -> MachineView:
        """The machine, for the device chip."""

"""The pictures a run leaves behind: samples while it learns, and a sheet of base beside style at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from PIL.Image import Image

from trainer.atomic import replace_file
from trainer.bases.prompts import literal
from trainer.config import RunConfig
from trainer.data.captions import compose
from trainer.data.dataset import Dataset
from trainer.events import Emit, Notice, Sampled
from trainer.preview.generate import Canvas, cut_short, generate
from trainer.preview.order import PreviewRow, PreviewSettings
from trainer.preview.png import parameters_of, save_png
from trainer.preview.sheet import contact_sheet, mosaic
from trainer.training.ladder import PREVIEW_WAYS, PREVIEWS_SAID
from trainer.training.loop import Trainer
from trainer.training.room import if_it_fits
from trainer.training.run_folder import RunFolder

SAMPLE_PROMPTS = 4
SHEET_PROMPTS = 6
PICTURE_SHARE = 0.5
"""Of the training's time, at most so much goes into pictures that nobody asked for."""
PICTURE_SECONDS = 120.0
"""So much they may take in any case."""


def unseen_prompts(subjects: Iterable[str], dataset: Dataset, count: int) -> list[str]:
    """Subjects that no caption names, so that pictures show the style and not a memory; at most ``count``."""
    captions = [f" {example.content.lower()} " for example in dataset.examples]
    fresh = [s for s in subjects if not any(f" {s.lower()} " in c for c in captions)]
    return (fresh or list(subjects))[:count]


class Pictures:
    """Draws with the weights as the file would hold them at the moment.

    Pictures that run out of memory are drawn with more care, and at last not at all: no run ends for want of them.

    Args:
        emit: told of each sample, and of pictures that are not there.
        drawing: told of (denoising steps done, in all) of the pictures of the moment; all are done once they are there.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        dataset: Dataset,
        trainer: Trainer,
        emit: Emit,
        drawing: Callable[[int, int], None],
    ) -> None:
        self.folder, self.config, self.trainer, self.emit, self.drawing = folder, config, trainer, emit, drawing
        samples, sheet = config.samples.count or SAMPLE_PROMPTS, config.samples.sheet or SHEET_PROMPTS
        fresh = unseen_prompts(trainer.base.family.prompts, dataset, max(samples, sheet))
        chosen = config.samples.prompts
        self.sample_prompts = chosen or fresh[:samples]
        self.sheet_prompts = chosen or fresh[:sheet]
        self.settings = PreviewSettings(
            steps=config.samples.steps or trainer.base.family.steps,
            guidance=config.samples.guidance,
            scheduler=config.samples.scheduler or trainer.base.family.scheduler,
        )
        rows = [self._row(prompt, strength=1.0) for prompt in [*self.sample_prompts, *self.sheet_prompts]]
        for sentence in cut_short(trainer.base, [text for row in rows for text in (row.prompt, row.negative)]):
            emit(Notice(level="warning", text=sentence))

    def samples(self, step: int) -> None:
        """One picture for each sample prompt, as ``samples/000200-0.png`` and an event; step 0 is the base."""
        rows = [self._row(prompt, strength=1.0) for prompt in self.sample_prompts]
        pictures = self._drawn(rows)
        if pictures is None:
            said = f"No pictures at step {step}: they need more memory than there is."
            self.emit(Notice(level="warning", text=f"Memory ran out while drawing. {said}"))
            return
        canvas = Canvas.of(self.trainer.base, self.settings)
        for index, (row, picture) in enumerate(zip(rows, pictures, strict=True)):
            path = self.folder.samples / f"{step:06d}-{index}.png"
            text = parameters_of(row, canvas, self.trainer.bank.names, self.trainer.base.title)
            save_png(picture, path, text)
            shown = path.relative_to(self.folder.path).as_posix()
            self.emit(Sampled(step=step, index=index, prompt=row.prompt, path=shown))

    def sheet(self, strength: float = 1.0) -> Image | None:
        """Write base and style side by side, for prompts that no caption names, same seed in each row.

        Args:
            strength: of the style's pictures.

        Returns:
            Four of the style's pictures as one, for the file's thumbnail; None when memory was not enough for a sheet.
        """
        rows = [self._row(prompt, shown) for prompt in self.sheet_prompts for shown in (0.0, strength)]
        pictures = self._drawn(rows)
        if pictures is None:
            self.emit(Notice(level="warning", text="Memory ran out while drawing. The style is kept without a sheet."))
            return None
        grid = [pictures[start : start + 2] for start in range(0, len(pictures), 2)]
        sheet = contact_sheet(grid, rows=[row.prompt for row in rows[::2]], columns=["base", self._label(strength)])
        replace_file(self.folder.sheet_file, lambda file: sheet.save(file, "PNG", optimize=True))
        return mosaic(pictures[1::2])

    def _label(self, strength: float) -> str:
        step = self.trainer.exported_step
        told = "" if step == self.trainer.step else f", step {step}"
        return f"{self.config.name}{told}" + ("" if strength == 1.0 else f", {strength:g}")

    def _drawn(self, rows: list[PreviewRow]) -> list[Image] | None:
        base = self.trainer.base
        with self.trainer.as_exported():
            asked = base.previews
            for way in PREVIEW_WAYS[PREVIEW_WAYS.index(asked) :]:
                base.previews = way
                pictures = if_it_fits(
                    base,
                    lambda: generate(base, self.trainer.bank, rows, self.settings, on_step=self._on_step),
                )
                if pictures is not None:
                    if way != asked:
                        self.emit(Notice(level="warning", text=f"Memory ran out while drawing. {PREVIEWS_SAID[way]}"))
                    self.drawing(1, 1)
                    return pictures
        return None

    def _on_step(self, done: int, total: int) -> bool:
        if done < total:
            self.drawing(done, total)
        return True

    def _row(self, prompt: str, strength: float) -> PreviewRow:
        samples = self.config.samples
        text = prompt if samples.prompts else compose(prompt, literal(self.config.trigger))
        if samples.prefix:
            text = f"{samples.prefix.rstrip(' ,')}, {text}"
        others = len(self.trainer.bank.names) - 1
        return PreviewRow(
            prompt=text, negative=samples.negative, seed=samples.seed, strengths=(strength, *[0.0] * others)
        )


def due(every: int, step: int, steps: int) -> bool:
    """Whether something happens after ``step``: every so many steps, and at the end; never before if ``every`` is 0."""
    return step == steps or bool(every and step % every == 0)


def samples_drawn(config: RunConfig, steps: int) -> int:
    """How many sample pictures a whole run of ``steps`` steps draws."""
    every = config.samples.every
    times = len({*range(0, steps + 1, every), steps}) if every else 1
    return (len(config.samples.prompts) or config.samples.count or SAMPLE_PROMPTS) * times


def sheet_drawn(config: RunConfig) -> int:
    """How many pictures are on the sheet."""
    return 2 * (len(config.samples.prompts) or config.samples.sheet or SHEET_PROMPTS)


def affordable(config: RunConfig, seconds_per_picture: float, seconds: float) -> tuple[RunConfig, str]:
    """Settings whose pictures take at most half of a training of so many seconds, and what was changed for it.

    What the user chose stays, and the fewest are one picture a round and two rows on the sheet.

    Args:
        config: resolved.
    """
    asked = config.samples
    if asked.prompts or asked.count is not None or asked.sheet is not None:
        return config, ""
    fewer, most = config.model_copy(deep=True), max(PICTURE_SECONDS, PICTURE_SHARE * seconds)
    for count, sheet in ((SAMPLE_PROMPTS, SHEET_PROMPTS), (2, 3), (1, 2)):
        fewer.samples.count, fewer.samples.sheet = count, sheet
        drawn = samples_drawn(fewer, config.train.steps or 0) + sheet_drawn(fewer)
        if drawn * seconds_per_picture <= most:
            break
    if count == SAMPLE_PROMPTS:
        return config, ""
    return fewer, (
        f"A picture takes about {seconds_per_picture:.0f} s here: {count} instead of {SAMPLE_PROMPTS} are drawn in "
        f"each round, and {sheet} instead of {SHEET_PROMPTS} rows on the sheet (samples.count, samples.sheet)."
    )

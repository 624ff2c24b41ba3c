"""``patina sample``: pictures with one or more styles, at one or more strengths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from trainer.cli.mending import mending, quiet_libraries
from trainer.config import BaseConfig, Scheduler
from trainer.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainer.adapters.bank import Bank
    from trainer.bases.base import Base
    from trainer.events import PreviewRow

_SCHEDULERS = ", ".join(get_args(Scheduler))


@dataclass(frozen=True)
class StyleUse:
    """A style file with the strength it is used at."""

    path: Path
    strength: float

    @classmethod
    def parse(cls, text: str) -> StyleUse:
        """``FILE`` or ``FILE:STRENGTH``; a colon that is no strength belongs to the file's name."""
        head, colon, tail = text.rpartition(":")
        try:
            strength = float(tail) if colon and head else None
        except ValueError:
            strength = None
        if strength is None:
            return cls(Path(text).expanduser(), 1.0)
        if not math.isfinite(strength):
            raise ConfigError(f"--adapter {text}: the strength should be a number such as 0.8.")
        return cls(Path(head).expanduser(), strength)


def sample(
    prompt: Annotated[list[str], typer.Option(help="What the picture should show; may be repeated, one row each.")],
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="A style file, with its strength after a colon: ink.safetensors:0.8. May be repeated."),
    ] = None,
    negative: Annotated[str, typer.Option(help="What the picture should not show.")] = "",
    strength: Annotated[
        str, typer.Option(help="Strengths that multiply the styles', one column each, such as 0,0.5,1.")
    ] = "1",
    compare: Annotated[
        bool, typer.Option("--compare", help="One column for each style, instead of all styles mixed.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="The base to draw with; without it the one the style was trained on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Start noise; the same for every picture.", min=0, max=2**32 - 1)] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1, max=200)] = 20,
    guidance: Annotated[
        float | None, typer.Option(help="How closely pictures follow the prompt.", min=0, max=30)
    ] = None,
    scheduler: Annotated[str, typer.Option(help=f"One of {_SCHEDULERS}.")] = "ddim",
    size: Annotated[str, typer.Option(help="Width x height in pixels, such as 512x768; empty is the base's own.")] = "",
    device: Annotated[str, typer.Option(help="Where to draw: auto, cuda, mps or cpu.")] = "auto",
    precision: Annotated[str, typer.Option(help="Number format of the base: auto, fp32, bf16 or fp16.")] = "auto",
    out: Annotated[
        Path, typer.Option(help="A .png for the picture or the sheet; a folder gets every picture and the sheet.")
    ] = Path("sample.png"),
) -> None:
    """Draw pictures with styles: rows are prompts, columns are strengths (or styles, with --compare)."""
    with mending():
        uses = [StyleUse.parse(text) for text in adapter or []]
        columns = _columns(uses, _numbers(strength), compare)
        if scheduler not in get_args(Scheduler):
            raise ConfigError(f"--scheduler is {scheduler!r}, but should be one of {_SCHEDULERS}.")
        width, height = _size(size)
        quiet_libraries()

        from trainer.adapters.bank import Bank
        from trainer.bases.load import load_base
        from trainer.events import PreviewRow, PreviewSettings
        from trainer.preview.generate import generate
        from trainer.preview.styles import base_of, load_style
        from trainer.training.device import physical_cores, pick_device, pick_dtype, set_up_threads

        place = pick_device(device)
        set_up_threads(physical_cores())
        source = base or base_of([use.path for use in uses])
        model = load_base(BaseConfig(source=source), device=place, dtype=pick_dtype(place, precision))
        bank = Bank(model.roots)
        for number, use in enumerate(uses):
            for note in load_style(bank, model, use.path, name=_unique(use.path.stem, bank.names, number)):
                typer.echo(note, err=True)
        settings = PreviewSettings(steps=steps, guidance=guidance, scheduler=scheduler, width=width, height=height)
        rows = [
            PreviewRow(prompt=text, negative=negative, seed=seed, strengths=strengths)
            for text in prompt
            for _, strengths in columns
        ]
        pictures = generate(model, bank, rows, settings)
        _save(pictures, rows, settings, [label for label, _ in columns], prompt, model, bank, out.expanduser())


def _columns(uses: list[StyleUse], factors: list[float], compare: bool) -> list[tuple[str, tuple[float, ...]]]:
    """Label and strengths (one for each style) of each column."""
    own = [use.strength for use in uses]
    if not uses:
        return [("base", ())]
    if compare:
        alone = [(use.path.stem, tuple(s if i == j else 0.0 for j, s in enumerate(own))) for i, use in enumerate(uses)]
        return [("base", (0.0,) * len(uses)), *alone]
    return [(f"strength {factor:g}", tuple(factor * s for s in own)) for factor in factors]


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"--strength is {text!r}, but should be numbers with commas between, such as 0,0.5,1.")
    return numbers


def _size(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdigit() and 0 < int(part) <= 4096 for part in parts):
        raise ConfigError(f"--size is {text!r}, but should be width x height in pixels, such as 512x768.")
    return int(parts[0]), int(parts[-1])


def _unique(name: str, taken: tuple[str, ...], number: int) -> str:
    return name if name not in taken else f"{name} ({number + 1})"


def _save(
    pictures: list[Image],
    rows: list[PreviewRow],
    settings: object,
    labels: list[str],
    prompts: list[str],
    base: Base,
    bank: Bank,
    out: Path,
) -> None:
    """One picture as it is; several as a sheet, and in a folder one by one as well."""
    from trainer.events import PreviewSettings
    from trainer.preview.generate import Canvas
    from trainer.preview.pngtext import parameters_of, save_png
    from trainer.preview.sheet import contact_sheet

    assert isinstance(settings, PreviewSettings)
    canvas = Canvas.of(base, settings)
    texts = [parameters_of(row, canvas, bank.names, base.title) for row in rows]
    is_file = out.suffix.lower() == ".png"
    if out.exists() and out.is_dir() == is_file:
        raise ConfigError(f"{out} is {'a folder' if is_file else 'a file'}: choose another --out.")
    written: list[Path] = []
    try:
        if not is_file:
            for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
                written.append(out / f"{number:03d}.png")
                save_png(picture, written[-1], text)
        if len(pictures) == 1:
            whole = pictures[0]
        else:
            width = len(labels)
            grid = [pictures[start : start + width] for start in range(0, len(pictures), width)]
            whole = contact_sheet(grid, rows=prompts, columns=labels)
        if is_file or len(pictures) > 1:
            written.append(out if is_file else out / "sheet.png")
            save_png(whole, written[-1], texts[0] if len(texts) == 1 else "\n\n".join(texts))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror or error}): choose another --out.") from None
    for path in written:
        typer.echo(path)

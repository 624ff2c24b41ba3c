"""``patina sample``: pictures with one or more styles, at one or more strengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from trainer.adapters.blocks import read_blocks
from trainer.cli.mending import mending, quiet_libraries
from trainer.cli.options import choices
from trainer.cli.style_files import AlphaTold, RsLora, alpha_told, progress, style_of
from trainer.config import BaseConfig, Precision, Scheduler, TrainConfig, sentence
from trainer.errors import AdapterFileError, ConfigError
from trainer.preview.begin import keep_image
from trainer.preview.order import PlacedStyle, PreviewRow, PreviewSettings

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainer.adapters.bank import Bank
    from trainer.bases.base import Base
    from trainer.styles.alpha import Alpha

MOST_PICTURES = 400
"""On one sheet; more are a slip of the keyboard rather than a wish."""
_OTHER_IMAGES = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Column:
    """What the pictures of one column share: a label, and the strength of each style."""

    label: str
    strengths: tuple[float, ...]


def sample(
    prompt: Annotated[
        list[str],
        typer.Option(
            metavar="TEXT", help="What the picture should show, (word:1.2) weighs more; may be repeated, one row each."
        ),
    ],
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:STRENGTH]",
            help="A style file, with its strength after a colon: ink.safetensors:0.8. May be repeated.",
        ),
    ] = None,
    negative: Annotated[str, typer.Option(metavar="TEXT", help="What the picture should not show.")] = "",
    strength: Annotated[
        str, typer.Option(metavar="LIST", help="Strengths that multiply the styles', one column each, such as 0,0.5,1.")
    ] = "1",
    compare: Annotated[
        bool, typer.Option("--compare", help="One column for each style, beside the base, instead of all mixed.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The base to draw with; without it the one the style was trained on."),
    ] = None,
    alpha: AlphaTold = None,
    rslora: RsLora = False,
    seed: Annotated[str, typer.Option(metavar="INTEGER", help="Start noise; the same for every picture.")] = "0",
    steps: Annotated[str, typer.Option(metavar="INTEGER", help="Denoising steps.")] = "20",
    guidance: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="How closely pictures follow the prompt; empty suits the base.")
    ] = None,
    scheduler: Annotated[str, typer.Option(metavar="NAME", help=f"{choices(Scheduler)}.")] = "ddim",
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Width x height in pixels, such as 512x768; empty is the base's own.")
    ] = "",
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A picture to begin with; without --size the result has its shape."),
    ] = None,
    change: Annotated[
        str, typer.Option(metavar="NUMBER", help="How much of that picture may change, above 0 to 1, which is all.")
    ] = "0.6",
    blocks: Annotated[
        str,
        typer.Option(
            metavar="NAME=FACTOR,...",
            help="How much the styles count in parts of the UNet: down, mid, up, on SDXL style and content; 'up=0.5'.",
        ),
    ] = "",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to draw: auto, cuda, cuda:1, mps or cpu.")
    ] = "auto",
    precision: Annotated[str, typer.Option(metavar=choices(Precision), help="Number format of the base.")] = "auto",
    quantize: Annotated[
        str, typer.Option(metavar="off|nf4|int8", help="Keep the base's weights in 4 or 8 bits, for little memory.")
    ] = "off",
    clip_skip: Annotated[
        str | None,
        typer.Option(
            metavar="INTEGER", help="How many of the last text-encoder layers are left out; empty is as in training."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(metavar="PATH", help="A .png for the picture or the sheet; a folder gets every picture as well."),
    ] = Path("sample.png"),
) -> None:
    """Draw pictures with styles: rows are prompts, columns are strengths (or styles, with --compare)."""
    with mending(), TemporaryDirectory(prefix="patina-") as folder:
        styles, told = [style_of(text) for text in adapter or []], alpha_told(alpha, rslora=rslora)
        columns = columns_of(styles, strengths_of(strength), compare=compare)
        width, height = size_of(size)
        asked = {"steps": steps, "guidance": guidance, "scheduler": scheduler, "width": width, "height": height}
        if image is not None:
            asked |= {"image": str(Path(folder) / keep_image(image.expanduser(), Path(folder))), "change": change}
        settings = _checked(PreviewSettings, asked)
        rows = [
            _checked(PreviewRow, {"prompt": text, "negative": negative, "seed": seed, "strengths": column.strengths})
            for text in prompt
            for column in columns
        ]
        place = _checked(TrainConfig, {"device": device, "precision": precision})
        if len(rows) > MOST_PICTURES:
            raise ConfigError(f"That would be {len(rows)} pictures; draw at most {MOST_PICTURES} at once.")
        kept = _checked(BaseConfig, {"quantize": quantize, "clip_skip": clip_skip})
        target = _target(out)
        factors = read_blocks(blocks, "--blocks")

        quiet_libraries()
        from trainer.preview.generate import cut_short

        model, bank = _open([style for style, _ in styles], base, kept, place, told)
        for name in bank.names:
            bank.weigh(name, factors)
        for unread in cut_short(model, [*prompt, negative]):
            typer.echo(unread, err=True)
        pictures = _draw(model, bank, rows, settings)
        for path in _save(pictures, rows, settings, columns, prompt, model, bank, target):
            typer.echo(path)


def columns_of(styles: Sequence[tuple[PlacedStyle, float]], factors: Sequence[float], *, compare: bool) -> list[Column]:
    """One column for each factor on all styles, or with ``compare`` the base and each style alone."""
    own = [strength for _, strength in styles]
    if not styles:
        return [Column("base", ())]
    if compare:
        alone = [
            Column(style.name, tuple(s if i == j else 0.0 for j, s in enumerate(own)))
            for i, (style, _) in enumerate(styles)
        ]
        return [Column("base", (0.0,) * len(styles)), *alone]
    return [Column(f"strength {factor:g}", tuple(factor * s for s in own)) for factor in factors]


def strengths_of(text: str) -> list[float]:
    """``0,0.5,1`` as numbers.

    Raises:
        ConfigError: one of them is none, or there is none.
    """
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"--strength is {text!r}, but should be numbers with commas between, such as 0,0.5,1.")
    return numbers


def size_of(text: str) -> tuple[int, int]:
    """``512x768`` or ``512`` as width and height in pixels; (0, 0), the base's own, for an empty text.

    Raises:
        ConfigError: it is neither.
    """
    if not text.strip():
        return 0, 0
    parts = [part.strip() for part in text.lower().replace("×", "x").split("x")]
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 0 < int(part[:6]) <= 4096 for part in parts):
        raise ConfigError(
            f"--size is {text!r}, but should be width x height in pixels of at most 4096, such as 512x768."
        )
    return int(parts[0]), int(parts[-1])


def _checked(model: Any, values: dict[str, Any]) -> Any:
    try:
        return model.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(sentence(error, {name: f"--{name}" for name in values})) from None


def _target(out: Path) -> Path:
    """Where the pictures go, made sure of before anything is drawn."""
    target = out.expanduser()
    is_file = target.suffix.lower() == ".png"
    if target.exists() and target.is_dir() == is_file:
        raise ConfigError(f"--out {target} is {'a folder' if is_file else 'a file'} already: choose another one.")
    if target.suffix.lower() in _OTHER_IMAGES:
        raise ConfigError(f"--out {target} should end in .png, which is the only format that is written.")
    folder = target.parent if is_file else target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {target} cannot be made ({error.strerror}): choose another one.") from None
    return target


def _open(
    styles: Sequence[PlacedStyle], wanted_base: str | None, kept: BaseConfig, place: TrainConfig, alpha: Alpha | None
) -> tuple[Base, Bank]:
    """The base with the styles in its bank."""
    from trainer.adapters.bank import Bank
    from trainer.bases.open import load_base
    from trainer.hardware import physical_cores, pick_device, pick_dtype, set_up_threads
    from trainer.preview.styles import load_style

    wanted = _base_for([Path(style.path) for style in styles], wanted_base, kept)
    device = pick_device(place.device)
    set_up_threads(physical_cores())
    model = load_base(wanted, device=device, dtype=pick_dtype(device, place.precision))
    for note in (*model.warnings, *model.notes):
        typer.echo(note, err=True)
    bank = Bank(model.roots)
    for number, style in enumerate(styles, start=1):
        name = style.name if style.name not in bank.names else f"{style.name} ({number})"
        for note in load_style(bank, model, Path(style.path), name=name, alpha=alpha):
            typer.echo(note, err=True)
    return model, bank


def _base_for(styles: Sequence[Path], named: str | None, asked: BaseConfig) -> BaseConfig:
    """The base to draw with: as the first style was trained on it, unless another one is named.

    Args:
        asked: what the command line says of it; what it leaves out is as it was in training.
    """
    from trainer.bases.sources import public_name
    from trainer.preview.styles import base_of

    try:
        trained_on = base_of(styles)
    except AdapterFileError:
        if not named:
            raise
        trained_on = BaseConfig()
    # A style names a file or folder by its last part alone.
    same = named is None or trained_on.source in (named, public_name(named))
    found = trained_on if same else BaseConfig()
    changes = {name: getattr(asked, name) for name in asked.model_fields_set}
    return found.model_copy(update={**changes, "source": named or found.source})


def _draw(model: Base, bank: Bank, rows: Sequence[PreviewRow], settings: PreviewSettings) -> list[Image]:
    from trainer.preview.generate import generate

    with progress("Drawing 1 picture" if len(rows) == 1 else f"Drawing {len(rows)} pictures") as told:

        def on_step(done: int, total: int) -> bool:
            told(done, total)
            return True

        return generate(model, bank, rows, settings, on_step=on_step)


def _save(
    pictures: Sequence[Image],
    rows: Sequence[PreviewRow],
    settings: PreviewSettings,
    columns: Sequence[Column],
    prompts: Sequence[str],
    base: Base,
    bank: Bank,
    target: Path,
) -> list[Path]:
    """One picture as it is; several as a sheet, and in a folder one by one as well. Returns the files."""
    from trainer.preview.generate import Canvas
    from trainer.preview.png import parameters_of, save_png
    from trainer.preview.sheet import contact_sheet

    canvas = Canvas.of(base, settings)
    texts = [parameters_of(row, canvas, bank.names, base.title) for row in rows]
    written: list[Path] = []
    is_file = target.suffix.lower() == ".png"
    if not is_file:
        for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            written.append(target / f"{number:03d}.png")
            save_png(picture, written[-1], text)
    if is_file or len(pictures) > 1:
        written.append(target if is_file else target / "sheet.png")
        width = len(columns)
        grid = [pictures[start : start + width] for start in range(0, len(pictures), width)]
        labels = [column.label for column in columns]
        whole = pictures[0] if len(pictures) == 1 else contact_sheet(grid, rows=prompts, columns=labels)
        save_png(whole, written[-1], "\n\n".join(texts))
    return written

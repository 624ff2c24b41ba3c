"""A style's directions beside another's and on its base (`trainer.workbench.subspaces`), for `patina inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from trainer.errors import ConfigError


def compare(first: Path, second: Path, side: str, picture: Path | None, *, as_json: bool) -> None:
    """Compare two style files layer kind by layer kind.

    Args:
        side: a name of `trainer.workbench.subspaces.SIDES`.
        picture: where the heat maps go, if anywhere.

    Raises:
        ConfigError: an unknown side, or styles that change no layer in common.
        AdapterFileError: a file is no style.
        RunError: the picture cannot be written.
    """
    from trainer.styles.read import read_style
    from trainer.workbench.subspaces import SIDES, one_start, overlaps

    chosen = next((known for known in SIDES if known == side), None)
    if chosen is None:
        raise ConfigError(f"--directions is {side!r}, but should be one of {', '.join(SIDES)}.")
    target = None if picture is None else _free(picture.expanduser())
    files = read_style(first.expanduser()), read_style(second.expanduser())
    found = overlaps(*files, chosen)
    if target is not None:
        from trainer.atomic import replace_file
        from trainer.workbench.heatmap import heatmap

        drawn = heatmap(
            found, title=f"{first.stem} and {second.stem}, {SIDES[chosen]}", names=(first.stem, second.stem)
        )
        replace_file(target, lambda file: drawn.quantize(128).save(file, "PNG", optimize=True))
    if as_json:
        kinds = [
            {
                "kind": one.kind,
                "layers": one.layers,
                "similarity": one.similarity.tolist(),
                "by_chance": one.by_chance.tolist(),
            }
            for one in found
        ]
        typer.echo(json.dumps({"directions": chosen, "kinds": kinds}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("Layers", "", "Strongest", "by chance", "All", "by chance", "Ranks"):
        table.add_column(title, justify="left" if title == "Layers" else "right")
    for one in found:
        rows, columns = one.similarity.shape
        table.add_row(
            one.kind,
            str(len(one.layers)),
            f"{one.similarity[0, 0]:.2f}",
            f"{one.by_chance[0, 0]:.2f}",
            f"{one.similarity[-1, -1]:.2f}",
            f"{one.by_chance[-1, -1]:.2f}",
            f"{rows}, {columns}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"Subspace similarity from 0 to 1 ({SIDES[chosen]}): of the strongest direction of each, and of all.",
        markup=False,
    )
    if chosen != "outputs" and one_start(*files):
        console.print(
            "Both say that they began from the same seed, so they read alike before they learned anything: "
            "--directions outputs compares what was learned.",
            style="yellow",
        )
    if target is not None:
        console.print(f"The heat maps are in {target}.", markup=False, soft_wrap=True)


def amplify(path: Path, source: str, *, as_json: bool) -> None:
    """Say how far a style turns up what the layers of a base hardly do.

    Args:
        source: of the base, as ``base.source``.

    Raises:
        BaseError: the base cannot be opened.
        AdapterFileError: the file is no style, or none for this base.
    """
    from dataclasses import asdict

    import torch

    from trainer.bases.open import load_base
    from trainer.config import BaseConfig
    from trainer.styles.read import read_style
    from trainer.workbench.subspaces import amplifications

    file = read_style(path.expanduser())
    base = load_base(BaseConfig(source=source), device=torch.device("cpu"), dtype=torch.float32)
    found = amplifications(file, base.roots)
    if as_json:
        typer.echo(json.dumps([{**asdict(one), "factor": one.factor} for one in found], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("Layers", "", "Rank", "Update", "Weight", "Along it", "Random", "Strongest", "Factor"):
        table.add_column(title, justify="left" if title == "Layers" else "right")
    for one in found:
        numbers = (one.update, one.weight, one.along_update, one.along_random, one.along_own)
        table.add_row(
            one.kind, str(one.layers), f"{one.rank:g}", *(f"{number:.3g}" for number in numbers), f"{one.factor:.2f}"
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "Norms: of the update, of the base's weight, and of what that weight does along the update's directions, along "
        "as many random ones and along its own strongest. The factor is the update over what the weight does along it.",
        markup=False,
    )


def _free(path: Path) -> Path:
    """A place for a picture where nothing is overwritten."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--heat-map {path} should end in .png.")
    if path.exists():
        raise ConfigError(f"--heat-map {path} exists already: choose another name, so that nothing is overwritten.")
    if not path.parent.is_dir():
        raise ConfigError(f"--heat-map {path} cannot be written: there is no folder {path.parent}.")
    return path

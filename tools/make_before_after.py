"""Make ``docs/before-after.png``: twelve subjects on the bundled base, plain and with each sample style.

And one of them as ``app/static/pairs/*.webp``, which the studio's first screen shows.

    python -m tools.make_before_after RUNS

Trains both styles of ``sample_data`` with the default settings into RUNS, as a newcomer would (one that is there
already is taken as it is), and draws subjects that are among neither style's images, with the same seeds in every row,
at the strength that judging picked for each style.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from trainer.bases.families import BUNDLED
from trainer.preview.sheet import contact_sheet

ROOT = Path(__file__).resolve().parents[1]
STYLES = {"high_contrast": "high contrast style", "streamline": "streamline style"}
"""Sample set -> its trigger."""
SUBJECTS = (
    "red heart",
    "red apple",
    "tomato",
    "panda",
    "fox",
    "pig face",
    "bus",
    "police car",
    "delivery truck",
    "castle",
    "evergreen tree",
    "crab",
)
PAIR = "panda"
PER_ROW = 6
SEED = 1


def patina(*arguments: str | float | Path) -> None:
    """Run the ``patina`` command.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-c", "from trainer.cli import main; main()", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT)


def trained(style: str, runs: Path) -> Path:
    """The style file of a sample set, trained with the default settings."""
    folder = runs / style
    file = folder / "adapter.safetensors"
    if not file.is_file():
        patina("train", ROOT / "sample_data" / style, "--trigger", STYLES[style], "--out", folder)
    return file


def picked(style: str, runs: Path) -> float:
    """The strength that judging picked at the end of the style's training."""
    return float(json.loads((runs / style / "judgement.json").read_text(encoding="utf-8"))["strength"])


def drawn(prompts: list[str], out: Path, *options: str | float | Path) -> list[Image.Image]:
    """One picture of each prompt, all from the same seed, as Preview draws with this base."""
    wishes = [part for prompt in prompts for part in ("--prompt", prompt)]
    how = ("--scheduler", BUNDLED.scheduler, "--steps", BUNDLED.steps)
    patina("sample", *wishes, "--seed", SEED, *how, "--out", out, *options)
    return [Image.open(path) for path in sorted(out.glob("[0-9]*.png"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder for the two trainings and their pictures")
    runs = parser.parse_args().runs.absolute()
    rows = {"base": drawn(list(SUBJECTS), runs / "base-pictures", "--base", "bundled")}
    for style, trigger in STYLES.items():
        prompts = [f"{subject}, {trigger}" for subject in SUBJECTS]
        file = trained(style, runs)
        how = ("--adapter", file, "--strength", picked(style, runs))
        rows[style.replace("_", " ")] = drawn(prompts, runs / f"{style}-pictures", *how)
    names, grid = [], []
    for start in range(0, len(SUBJECTS), PER_ROW):
        for name, pictures in rows.items():
            names.append(name)
            grid.append(pictures[start : start + PER_ROW])
    for name, pictures in rows.items():
        # What the studio's first screen shows of each style.
        pair = ROOT / "app" / "static" / "pairs" / f"{name.replace(' ', '_')}.webp"
        pictures[SUBJECTS.index(PAIR)].resize((256, 256)).save(pair, "WEBP", quality=90)
    sheet = contact_sheet(grid, rows=names, cell=128)
    sheet.quantize(256, method=Image.Quantize.MEDIANCUT).save(ROOT / "docs" / "before-after.png", optimize=True)


if __name__ == "__main__":
    main()

"""Make the whole base in stretches: data set, autoencoder, its decoder once more, text model and UNet, judge,
measurements, packed folder.

    python -m tools.base.make --icons ICONS --work WORK --out FOLDER --stretch 9

Run the same command until it says that the base is made: each run continues the last and trains for at most
``--stretch`` minutes. WORK keeps what the next run needs (data, checkpoints); FOLDER gets the packed base and
nothing else. With one large GPU two runs of 9 minutes are enough.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from tools.base import dataset, looks, model_folder
from tools.base.classifier import Judge, train_judge
from tools.base.device import best_device
from tools.base.measure import measure
from tools.base.pack import pack
from tools.base.sizes import SIZES
from tools.base.subjects import KNOWN_SUBJECTS
from tools.base.train import BASE, TRAININGS, train

JUDGE_MINUTES = 1.5
BREADTH = 0.1
"""Of the looks, at subjects besides the known ones."""


def make(
    icons: Path,
    work: Path,
    out: Path,
    *,
    size: str,
    autoencoder_minutes: float,
    decoder_minutes: float,
    text_to_image_minutes: float,
    judge_minutes: float = JUDGE_MINUTES,
    stretch: float,
) -> bool:
    """One stretch; true when the base is made and packed. ``stretch``: minutes of training in this call.

    Raises:
        FileNotFoundError: ``icons`` lacks a package of `tools.base.icon_sets`.
    """
    ends = time.monotonic() + 60 * stretch
    chosen = SIZES[size]
    data_folder, run_folder, judge_folder = work / "data", work / "run", work / "judge"
    if (data_folder / dataset.ICONS).is_file():
        data = dataset.load(data_folder)
    else:
        data = dataset.build(icons, data_folder, pixels=chosen.pixels, breadth=BREADTH)
    looked_folder = work / "looked"
    if (looked_folder / dataset.ICONS).is_file():
        looked = dataset.load(looked_folder)
    else:
        looked = looks.with_looks(data, looks.LOOKS_EACH, looks.SHARE)
        dataset.write(looked, looked_folder)
    learnt = looked.select("train")
    minutes_of = dict(zip(TRAININGS, (autoencoder_minutes, decoder_minutes, text_to_image_minutes), strict=True))
    for training, minutes in minutes_of.items():
        left = (ends - time.monotonic()) / 60
        if left <= 0:
            return False
        learner = train(training, learnt, run_folder, size=chosen, minutes=minutes, stretch=left)
        if learner.progress < 1:
            return False
    if (ends - time.monotonic()) / 60 < judge_minutes < stretch:
        return False
    known = data.about(KNOWN_SUBJECTS)
    trained = (judge_folder / "judge.json").is_file()
    judge = Judge.load(judge_folder) if trained else train_judge(known, judge_folder, minutes=judge_minutes)
    measurements = measure(model_folder.load(run_folder / BASE).to(best_device()), known, judge)
    (work / "measurements.json").write_text(json.dumps(measurements, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    pack(run_folder, out, measurements=measurements)
    for training in TRAININGS:
        shutil.copyfile(run_folder / training / "log.jsonl", out / f"{training}.log.jsonl")
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", type=Path, required=True, help="folder of the fetched npm packages")
    parser.add_argument("--work", type=Path, required=True, help="folder that stays between runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the packed base; it is replaced")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--autoencoder-minutes", type=float, default=3.5)
    parser.add_argument("--decoder-minutes", type=float, default=1.5)
    parser.add_argument("--text-to-image-minutes", type=float, default=10.5)
    parser.add_argument("--judge-minutes", type=float, default=JUDGE_MINUTES)
    parser.add_argument("--stretch", type=float, default=9.0, help="minutes of training in this run (9)")
    chosen = vars(parser.parse_args(arguments))
    made = make(chosen.pop("icons"), chosen.pop("work"), chosen.pop("out"), **chosen)
    print("the base is made" if made else "run the same command again to go on")


if __name__ == "__main__":
    main()

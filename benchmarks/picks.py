"""Is the pick a good one? Fifteen runs, each of whose candidates is judged by two networks that picking never sees.

    python -m tools.base.dataset fetch --icons ICONS        packages of the training sets (npm)
    python -m tools.base.dataset build --icons ICONS --out DATA --pixels 128
    python -m tools.base.classifier --data DATA --out JUDGE --minutes 5
    python -m benchmarks.picks --icons ICONS --data DATA --judge JUDGE --out OUT

Three styles (both samples, and the streamline sample printed in one ink), five seeds each, default settings on the
bundled base. Each candidate (a saved state at a strength from 0.75 on) draws subjects that neither its captions nor
picking's own prompts name. *Subject*: the share that the maintainers' judge, trained on real icons, names among its
first five guesses. *Style*: the mean probability that a second network, trained to tell real icons of several sets
apart, gives to the style's set. The joint score is their harmonic mean. A pick counts as good within 5% of the run's
best candidate; it is also compared with the last state at strength 1.

What is done is kept in OUT: the same command goes on. ``--runs N`` stops after N runs, ``--table`` prints what is
there.
About an hour and a half on one core that is left alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional as F

from tools.base import dataset as icons
from tools.base.classifier import Judge, distorted, new_network, shrunk
from tools.base.icon_sets import IconSet, fetch, read
from tools.base.subjects import COMMON_SUBJECTS
from tools.make_sample_data import STYLES as SAMPLES
from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.open import load_base
from trainer.bases.quiet import quiet_libraries
from trainer.config import RunConfig, parse
from trainer.data.captions import compose
from trainer.errors import PatinaError
from trainer.hardware import physical_cores, set_up_threads
from trainer.judging.judgement import Judged, Judgement, from_json
from trainer.judging.pick import joint
from trainer.preview.generate import generate
from trainer.preview.order import PreviewRow, PreviewSettings
from trainer.training import checkpoint as checkpoints
from trainer.training.loop import Trainer
from trainer.training.pausing import Uncontrolled
from trainer.training.prepare import prepare, read_dataset
from trainer.training.processes import open_accelerator
from trainer.training.run import add_style, create, train, trainer_of
from trainer.training.run_folder import RunFolder

SAMPLE_DATA = Path(__file__).parents[1] / "sample_data"
PRINT = "one_ink"
SEEDS = (11, 12, 13, 14, 15)
"""Scores and limits were chosen while looking at runs with seeds 1 to 10."""
LEAST_STRENGTH = 0.75
"""Weaker candidates are not judged unless they are picked: of thirty runs none had its best there."""
SUBJECTS = 36
DRAWING_SEED = 1001
WITHIN = 0.95
PIXELS = 64
FITTING_STEPS = 2400
BATCH = 64
NEEDED = {"good": 13, "better": 12}
"""Of fifteen runs: picks within 5% of the best candidate, and picks better than the last state at strength 1."""


def one_ink(picture: Image.Image) -> Image.Image:
    """A picture printed in crimson alone, on white: the third style."""
    light = ImageOps.autocontrast(ImageOps.grayscale(picture))
    return ImageOps.colorize(light, black="#6b0f2e", white="#ffffff", mid="#d4577d")


@dataclass(frozen=True)
class Style:
    """A style to train: its images, and the words that call it."""

    name: str
    images: Path

    @property
    def trigger(self) -> str:
        return f"{self.name.replace('_', ' ')} style"


def styles(out: Path) -> list[Style]:
    """The three styles; the images of the third are made where they are missing."""
    made = out / PRINT
    source = SAMPLE_DATA / "streamline"
    if not made.is_dir():
        scratch = made.with_suffix(".new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for path in sorted(source.glob("*.png")):
            one_ink(Image.open(path).convert("RGB")).save(scratch / path.name)
            shutil.copy(path.with_suffix(".txt"), scratch)
        scratch.replace(made)
    return [Style(each.folder, SAMPLE_DATA / each.folder) for each in SAMPLES] + [Style(PRINT, made)]


# ---- who judges style


@dataclass
class StyleJudge:
    """A network that tells icon sets apart; ``classes`` are the sets' names."""

    network: nn.Module
    classes: tuple[str, ...]
    accuracy: float
    """On real icons that it was not trained on."""

    @torch.no_grad()
    def shares(self, images: NDArray[np.uint8], name: str) -> list[float]:
        """The probability of one set for each picture (N, H, W, 3)."""
        self.network.eval()
        logits = self.network(shrunk(images, torch.device("cpu")))
        shares: list[float] = logits.softmax(dim=1)[:, self.classes.index(name)].tolist()
        return shares


def style_judge(packages: Path, data: Path, out: Path, *, steps: int = FITTING_STEPS) -> StyleJudge:
    """The network that is there, or a new one, trained on real icons but those that the samples show."""
    file = out / "style_judge.pt"
    if file.is_file():
        kept = torch.load(file, weights_only=True)
        network = new_network(len(kept["classes"]))
        network.load_state_dict(kept["weights"])
        return StyleJudge(network.eval(), tuple(kept["classes"]), float(kept["accuracy"]))
    pictures = {name: _drawn(packages, name) for name in (each.folder for each in SAMPLES)}
    pictures[PRINT] = np.stack([_printed(picture) for picture in pictures["streamline"]])
    known = icons.load(data)
    for key in dict.fromkeys(entry.set_key for entry in known.entries):
        pictures[key] = known.of_sets(key).every(600).images
    classes = tuple(pictures)
    inputs = torch.cat([shrunk(pictures[name], torch.device("cpu")) for name in classes])
    labels = torch.cat([torch.full((len(pictures[name]),), index) for index, name in enumerate(classes)])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    proof, learnt = order[::10], order[torch.arange(len(order)) % 10 != 0]
    torch.manual_seed(0)
    network = new_network(len(classes)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    # Every set as often as another, however many icons it has.
    weights = (1.0 / torch.bincount(labels[learnt]).float())[labels[learnt]]
    for step in range(steps):
        rows = learnt[torch.multinomial(weights, BATCH, replacement=True, generator=generator)]
        loss = F.cross_entropy(network(distorted(inputs[rows], generator)), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"  the judge of styles: step {step} of {steps}, loss {float(loss.detach()):.3f}", flush=True)
    network.eval()
    with torch.no_grad():
        right = torch.cat([network(part).argmax(1) for part in inputs[proof].split(256)]) == labels[proof]
    accuracy = float(right.float().mean())
    torch.save({"classes": list(classes), "accuracy": accuracy, "weights": network.state_dict()}, file)
    return StyleJudge(network, classes, accuracy)


def _drawn(packages: Path, name: str) -> NDArray[np.uint8]:
    """All icons of a sample's set but those that the sample shows."""
    sample = next(each for each in SAMPLES if each.folder == name)
    icon_set = IconSet(
        key=name, package=sample.package, version=sample.version, licence=sample.licence, credit=sample.licence
    )
    fetch([icon_set], packages)
    found = [icon for icon in read(icon_set, packages) if icon.name not in sample.icons]
    return np.stack([icons.draw(icon.svg, PIXELS) for icon in found])


def _printed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(one_ink(Image.fromarray(picture)), dtype=np.uint8)


# ---- one run


def trained(style: Style, seed: int, out: Path, base: Base) -> RunFolder:
    """The run of a style with a seed, done or gone on with."""
    folder = RunFolder(out / "runs" / f"{style.name}-{seed}")
    if not folder.exists():
        create(
            parse(
                {
                    "name": style.name,
                    "trigger": style.trigger,
                    "data": {"images": str(style.images)},
                    "train": {"seed": seed},
                    "samples": {"every": 0},
                }
            ),
            folder.path,
        )
    if not folder.judgement_file.is_file():
        train(folder, emit=lambda event: None, control=Uncontrolled(), base=base)
    if not folder.judgement_file.is_file():
        raise PatinaError(f"{folder.path} was too short to be judged.")
    return folder


class Drawer:
    """Draws what candidates of one run make of subjects that picking did not ask for."""

    def __init__(self, folder: RunFolder, base: Base, subjects: Sequence[str]) -> None:
        self.folder, self.base, self.subjects = folder, base, subjects
        self.config: RunConfig = folder.config()
        dataset = read_dataset(folder, self.config, base)
        prepared = prepare(dataset, self.config, base, folder.cache)
        self.bank = Bank(base.roots)
        add_style(self.bank, self.base, self.config)
        self.trainer: Trainer = trainer_of(base, self.bank, prepared, self.config, open_accelerator("cpu"))

    def pictures(self, one: Judged) -> NDArray[np.uint8]:
        """Pictures of a candidate, (subjects, H, W, 3)."""
        saved = dict(self.folder.saved())
        self.trainer.take(self.trainer.exported_of(checkpoints.read(saved[one.step])))
        rows = [
            PreviewRow(prompt=compose(subject, self.config.trigger), seed=DRAWING_SEED, strengths=(one.strength,))
            for subject in self.subjects
        ]
        family = self.base.family
        settings = PreviewSettings(steps=family.steps, scheduler=family.scheduler)
        return np.stack([np.asarray(each) for each in generate(self.base, self.bank, rows, settings)])

    def close(self) -> None:
        self.bank.detach()


def asked(style: Style, judgement: Judgement, judge: Judge) -> list[str]:
    """Subjects that the judge knows and that neither the style's captions nor picking's prompts name."""
    captions = " | ".join(path.read_text(encoding="utf-8").lower() for path in style.images.glob("*.txt"))
    used = f"{captions} | {' | '.join(judgement.prompts).lower()}"
    fresh = [subject for subject in COMMON_SUBJECTS if subject in judge.classes and subject not in used]
    stride = max(1, len(fresh) // SUBJECTS)
    return fresh[::stride][:SUBJECTS]


def measured(style: Style, folder: RunFolder, base: Base, judge: Judge, looks: StyleJudge) -> dict[str, Any]:
    """What both judges say of every candidate of a run."""
    judgement = from_json(folder.judgement_file.read_bytes())
    subjects = asked(style, judgement, judge)
    drawer = Drawer(folder, base, subjects)
    rows = []
    try:
        for one in judgement.candidates:
            picked = (one.step, one.strength) == (judgement.step, judgement.strength)
            if one.strength < LEAST_STRENGTH and not picked:
                continue
            pictures = drawer.pictures(one)
            guesses = judge.guesses(pictures, first=5)
            subject = float(np.mean([name in row for name, row in zip(subjects, guesses, strict=True)]))
            share = float(np.mean(looks.shares(pictures, style.name)))
            rows.append({"step": one.step, "strength": one.strength, "style": share, "subject": subject})
    finally:
        drawer.close()
    return {"candidates": rows, "picked": [judgement.step, judgement.strength], "sentence": judgement.sentence}


# ---- the table


@dataclass(frozen=True)
class Row:
    """One run: joint scores of the pick, the best candidate, and the last state at strength 1."""

    run: str
    picked: tuple[int, float]
    best_at: tuple[int, float]
    pick: float
    best: float
    last: float

    @property
    def good(self) -> bool:
        return self.pick >= WITHIN * self.best

    @property
    def better(self) -> bool:
        return self.pick > self.last


def row_of(run: str, found: dict[str, Any]) -> Row:
    """A run's row."""
    scores = {(one["step"], one["strength"]): joint(one["style"], one["subject"]) for one in found["candidates"]}
    picked = (int(found["picked"][0]), float(found["picked"][1]))
    last_step = max(step for step, _ in scores)
    # The strength nearest to 1 where 1 itself was not asked for.
    last = min((name for name in scores if name[0] == last_step), key=lambda name: abs(name[1] - 1.0))
    best = max(scores, key=lambda name: scores[name])
    return Row(run, picked, best, scores[picked], scores[best], scores[last])


def table(results: dict[str, Any]) -> str:
    """All runs as Markdown, with what was to be shown."""
    rows = [row_of(run, found) for run, found in results["runs"].items()]
    lines = [
        "| run | pick | joint | best candidate | joint | last at 1 | within 5% | better than last at 1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.run} | {row.picked[0]} at {row.picked[1]:g} | {row.pick:.3f} | {row.best_at[0]} at "
            f"{row.best_at[1]:g} | {row.best:.3f} | {row.last:.3f} | {'yes' if row.good else 'no'} | "
            f"{'yes' if row.better else 'no'} |"
        )
    good, better = sum(row.good for row in rows), sum(row.better for row in rows)
    style, subject = (100 * results.get(f"{name}_accuracy", 0.0) for name in ("style", "subject"))
    lines += [
        "",
        f"{good} of {len(rows)} picks within 5% of the best candidate (wanted: {NEEDED['good']} of 15), {better} "
        f"better than the last state at strength 1 (wanted: {NEEDED['better']} of 15).",
        f"The judge of styles names the set of {style:.0f}% of real icons it was not trained on, the judge of subjects "
        f"{subject:.0f}% of them in five guesses.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", type=Path, help="folder with the fetched packages")
    parser.add_argument("--data", type=Path, help="folder that tools.base.dataset has built")
    parser.add_argument("--judge", type=Path, help="folder that tools.base.classifier has written")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of picks.json")
    parser.add_argument("--runs", type=int, default=len(SEEDS) * 3, help="most runs to do in this call")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    chosen = parser.parse_args(arguments)
    file = chosen.out / "picks.json"
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"runs": {}}
    if chosen.table:
        print(table(results))
        return
    if not (chosen.icons and chosen.data and chosen.judge):
        parser.error("--icons, --data and --judge are needed unless --table is given")
    chosen.out.mkdir(parents=True, exist_ok=True)
    quiet_libraries()
    set_up_threads(physical_cores())
    judge = Judge.load(chosen.judge)
    looks = style_judge(chosen.icons, chosen.data, chosen.out)
    results |= {"style_accuracy": looks.accuracy, "subject_accuracy": judge.held_out_accuracy}
    base = load_base(parse({}).base, device=torch.device("cpu"), dtype=torch.float32)
    left = chosen.runs
    for seed in SEEDS:
        for style in styles(chosen.out):
            run = f"{style.name}-{seed}"
            if run in results["runs"] or left <= 0:
                continue
            left -= 1
            began = time.monotonic()
            folder = trained(style, seed, chosen.out, base)
            results["runs"][run] = measured(style, folder, base, judge, looks)
            scratch = file.with_suffix(".new")
            scratch.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            scratch.replace(file)
            print(f"{run}: {time.monotonic() - began:.0f} s", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()

"""The judge of the recognition measurement: a small network that names the subject of a picture.

    python -m tools.base.classifier --data DATA --out JUDGE --minutes 5

It learns real icons only, of the training sets and of the two sets no base has seen, shifted, scaled, recoloured
and blurred, and is itself judged on the held-out icons. It never sees a generated picture before it judges one.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tools.base import dataset
from tools.base.dataset import IconData
from tools.base.device import best_device, precision, to_pixels
from tools.base.learner import Learner, run
from tools.base.subjects import COMMON_SUBJECTS

PIXELS = 64
"""The judge looks at pictures of this side, whatever the base draws."""
CLASSES = 1000
CHANNELS = (32, 64, 128, 256)


class Block(nn.Module):
    """Two convolutions around a shortcut (He et al., arXiv 1512.03385), halving the side."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(8, outside)
        self.second = nn.Conv2d(outside, outside, 3, padding=1)
        self.last_norm = nn.GroupNorm(8, outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) to (B, outside, H/2, W/2)."""
        y = F.silu(self.norm(self.first(x)))
        return F.silu(self.last_norm(self.second(y)) + self.shortcut(x))


def new_network(classes: int) -> nn.Module:
    """Images (B, 3, 64, 64) in [-1, 1] to logits (B, classes)."""
    sides = zip((3, *CHANNELS), CHANNELS, strict=False)
    return nn.Sequential(
        *(Block(inside, outside) for inside, outside in sides),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(CHANNELS[-1] * 4, classes),
    )


def choose_classes(data: IconData, count: int = CLASSES) -> tuple[str, ...]:
    """The common subjects, then those that most drawings show, ``count`` in all."""
    drawings = Counter(entry.subject for entry in data.entries)
    common = [subject for subject in COMMON_SUBJECTS if drawings[subject]]
    rest = sorted(drawings.keys() - set(common), key=lambda subject: (-drawings[subject], subject))
    return (*common, *rest)[:count]


def distorted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images as a weak painter might have made them: moved, turned, rescaled, recoloured, blurred. (B, 3, H, W)."""
    device, count = images.device, len(images)

    def uniform(*shape: int, low: float, high: float) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device) * (high - low) + low

    angle, scale = uniform(low=-0.2, high=0.2), uniform(low=0.85, high=1.3)
    shift = uniform(2, 1, low=-0.15, high=0.15)
    cosine, sine = (scale * angle.cos()).view(-1, 1), (scale * angle.sin()).view(-1, 1)
    turn = torch.stack([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)], dim=1)
    grid = F.affine_grid(torch.cat([turn, shift], dim=2), list(images.shape), align_corners=False)
    # Ink rather than paper is moved, so that white ground comes in from outside.
    moved = 1 - F.grid_sample(1 - images, grid, align_corners=False)
    ink = (1 - moved) * uniform(3, 1, 1, low=0.8, high=1.1) * uniform(1, 1, 1, low=0.8, high=1.1)
    coarse = F.interpolate(F.avg_pool2d(ink, 2), size=ink.shape[-2:], mode="bilinear", align_corners=False)
    mixed = torch.lerp(ink, coarse, uniform(1, 1, 1, low=0.0, high=1.0))
    return (1 - mixed + 0.05 * torch.randn(images.shape, generator=generator, device=device)).clamp(-1, 1)


def shrunk(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Pictures of any side, (B, H, W, 3), as the judge takes them: (B, 3, 64, 64) in [-1, 1]."""
    pixels = to_pixels(images, device)
    if pixels.shape[-1] == PIXELS:
        return pixels
    return F.interpolate(pixels, size=(PIXELS, PIXELS), mode="area")


@dataclass
class Judge:
    """A trained judge."""

    network: nn.Module
    classes: tuple[str, ...]
    held_out_accuracy: float
    """Share of held-out icons whose subject is among its first five guesses."""

    @torch.no_grad()
    def guesses(self, images: NDArray[np.uint8], *, first: int) -> list[list[str]]:
        """The ``first`` most likely subjects of each picture (N, H, W, 3), best first."""
        self.network.eval()
        device = next(self.network.parameters()).device
        named = []
        for start in range(0, len(images), 256):
            logits = self.network(shrunk(images[start : start + 256], device))
            named.extend(logits.topk(min(first, len(self.classes)), dim=1).indices.tolist())
        return [[self.classes[index] for index in row] for row in named]

    def accuracy(self, data: IconData, *, first: int = 5) -> float:
        """Share of a data set's pictures, of subjects the judge knows, that it names among its first guesses."""
        known = [index for index, entry in enumerate(data.entries) if entry.subject in self.classes]
        named = self.guesses(data.images[known], first=first)
        return sum(data.entries[i].subject in row for i, row in zip(known, named, strict=True)) / max(len(known), 1)

    def save(self, folder: Path) -> None:
        """Write the judge's weights and classes."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}, _weights(folder))
        facts = {"held_out_accuracy": self.held_out_accuracy, "classes": self.classes}
        (folder / "judge.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """Read a judge that `save` has written."""
        from safetensors.torch import load_file

        facts = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
        network = new_network(len(facts["classes"]))
        network.load_state_dict(load_file(_weights(folder)))
        return cls(network.eval(), tuple(facts["classes"]), facts["held_out_accuracy"])


def train_judge(data: IconData, out: Path, *, minutes: float, batch: int = 128, seed: int = 0) -> Judge:
    """Train a judge on all icons but the held-out ones, judge it on those, and write it to ``out``."""
    device = best_device()
    torch.manual_seed(seed)
    classes = choose_classes(data)
    label_of = {subject: label for label, subject in enumerate(classes)}
    learnt = data.select("train")
    known = [index for index, entry in enumerate(learnt.entries) if entry.subject in label_of]
    labels = torch.tensor([label_of[learnt.entries[index].subject] for index in known], device=device)
    images = torch.cat([shrunk(learnt.images[known[i : i + 256]], device) for i in range(0, len(known), 256)])
    network = new_network(len(classes)).to(device).train()

    def step(generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(labels), (batch,), generator=generator, device=device)
        with precision(device):
            logits = network(distorted(images[rows], generator))
        return F.cross_entropy(logits.float(), labels[rows], label_smoothing=0.1)

    learner = Learner(out, {"judge": network}, 60 * minutes, 2e-3, 0.998, seed, batch, weight_decay=0.05)
    learner.resume()
    run(learner, step, stretch_seconds=60 * minutes, save_seconds=120, on_save=lambda: None)
    learner.average.swap()
    judge = Judge(network, classes, 0.0)
    judge.held_out_accuracy = round(judge.accuracy(data.select("held-out")), 4)
    judge.save(out)
    return judge


def _weights(folder: Path) -> Path:
    return folder / "judge.safetensors"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that tools.base.dataset has built")
    parser.add_argument("--out", type=Path, required=True, help="folder for the judge")
    parser.add_argument("--minutes", type=float, default=5.0)
    chosen = parser.parse_args(arguments)
    judge = train_judge(dataset.load(chosen.data), chosen.out, minutes=chosen.minutes)
    print(f"{len(judge.classes)} classes; {100 * judge.held_out_accuracy:.1f}% of held-out icons named in five guesses")


if __name__ == "__main__":
    main()

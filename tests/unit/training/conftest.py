"""A small dataset and the bundled base, shared by the tests of training and previews."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.config import RunConfig, parse
from trainer.presets import resolve
from trainer.training.batches import Batches
from trainer.training.loop import Trainer
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.run_folder import RunFolder

PICTURES = 6


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outlined shapes, each with a caption."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(PICTURES):
        picture = Image.new("RGB", (96, 96), "white")
        draw = ImageDraw.Draw(picture)
        draw.ellipse((10 + 5 * index, 12, 80, 40 + 8 * index), outline="black", width=4)
        picture.save(folder / f"shape-{index}.png")
        (folder / f"shape-{index}.txt").write_text(f"round shape number {index}", encoding="utf-8")
    return folder


@pytest.fixture
def settings(image_folder: Path) -> dict[str, object]:
    """A run that takes a second: four steps on tiny batches, few sample pictures."""
    return {
        "name": "ink",
        "trigger": "ink style",
        "data": {"images": str(image_folder), "flip": True},
        "adapter": {"rank": 4},
        "optim": {"batch_size": 2, "warmup_steps": 1},
        "train": {"steps": 4, "threads": 1, "checkpoint_every": 2},
        "samples": {"prompts": ["cat face"], "steps": 2, "every": 0},
    }


def resolved(config: RunConfig, base: Base, images: int) -> RunConfig:
    return resolve(config, base.family, resolution=base.resolution, images=images)


@pytest.fixture(scope="session")
def materials(base: Base, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = RunFolder(tmp_path_factory.mktemp("materials"))
    config = parse(
        {"trigger": "ink style", "data": {"images": str(image_folder), "flip": True, "validation_share": 0.34}}
    )
    return prepare(read_dataset(folder, config, base), config, base, folder.cache)


@pytest.fixture
def bank(base: Base) -> Iterator[Bank]:
    bank = Bank(base.roots)
    yield bank
    bank.detach()


@pytest.fixture
def config(settings: dict[str, object], base: Base) -> RunConfig:
    return resolved(parse(settings), base, PICTURES)


@pytest.fixture
def trainer(base: Base, bank: Bank, materials: Prepared, config: RunConfig) -> Trainer:
    torch.set_num_threads(1)
    bank.add("style", rank=4, seed=3)
    batches = Batches(base, materials.training, materials.features, batch_size=2, seed=5, caption_dropout=0.2)
    return Trainer(base, bank, "style", batches, config)

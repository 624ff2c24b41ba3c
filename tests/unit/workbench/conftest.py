"""Tiny styles of tiny models, written and read as real ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import TinyModel, build
from tiny_styles import roots_of
from tiny_unet import awaken, inputs, make_inputs, make_unet, run, unet

from trainer.adapters.bank import Bank
from trainer.styles.file import StyleFile
from trainer.styles.read import read_style
from trainer.styles.write import write_style

__all__ = ["awaken", "inputs", "make_inputs", "make_unet", "run", "unet"]


@pytest.fixture
def make_style(make_unet: Any, awaken: Any, tmp_path: Path) -> Callable[..., StyleFile]:
    """Makes a style for the tiny UNet: its name, the seed of its weights, metadata, and what `Bank.add` takes."""

    def make(
        name: str, seed: int = 1, *, metadata: dict[str, str] | None = None, size: float = 0.2, **asked: Any
    ) -> StyleFile:
        bank = Bank({"unet": make_unet()})
        bank.add("a", **{"targets": "attention", "rank": 3, "alpha": 2.0, "seed": seed} | asked)
        awaken(bank, "a", seed, size)
        path = tmp_path / f"{name}.safetensors"
        write_style(path, bank.weights_of("a"), metadata={"ss_output_name": name, **(metadata or {})})
        return read_style(path)

    return make


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], TinyModel]:
    """The tiny model of a family, made once; not to be changed."""
    made: dict[str, TinyModel] = {}

    def get(key: str) -> TinyModel:
        if key not in made:
            made[key] = build(key)
        return made[key]

    return get


@pytest.fixture(scope="session")
def family_style(
    tiny: Callable[[str], TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., StyleFile]:
    """Makes a style for a tiny model of a family, over layers of every kind."""
    made: dict[tuple[str, str], StyleFile] = {}

    def make(key: str, method: str = "lora") -> StyleFile:
        if (key, method) not in made:
            bank = Bank(roots_of(tiny(key)))
            paths = [
                f"{root}.{path}"
                for root, model in bank.roots.items()
                for path, module in model.named_modules()
                if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
                and (".attentions." in path or ".conv1" in path or ".downsamplers." in path or "layers.1." in path)
            ]
            bank.add("a", paths[::5], rank=2, alpha=1.0, method=method, seed=0)
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for part, parameter in bank.parameters_of("a"):
                    if part.endswith(".up"):
                        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
                    elif part.endswith(".magnitude"):
                        parameter.mul_(1.1)
            path = tmp_path_factory.mktemp("styles") / f"{key}.safetensors"
            family = "sd2" if key == "sd2_v" else key
            write_style(path, bank.weights_of("a"), metadata={"ss_output_name": key, "patina.family": family})
            made[key, method] = read_style(path, {root: dict(m.named_modules()) for root, m in bank.roots.items()})
            bank.detach()
        return made[key, method]

    return make

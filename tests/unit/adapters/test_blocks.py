"""Where a style counts: targets in SDXL's blocks of style and content, and a strength for each part of the UNet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import build

from trainer.adapters.bank import Bank
from trainer.adapters.blocks import BLOCKS, blocks_text, factor_of, read_blocks
from trainer.adapters.targets import describe, select
from trainer.bases.families import SDXL
from trainer.config import parse
from trainer.errors import ConfigError
from trainer.styles.read import read_style
from trainer.styles.write import write_style
from trainer.workbench.split import split

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def unet() -> Any:
    return build("sdxl").unet.requires_grad_(False).eval()


def answer(unet: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    added = {"text_embeds": torch.randn(1, 32, generator=generator), "time_ids": torch.zeros(1, 6)}
    with torch.no_grad():
        result: torch.Tensor = unet(
            torch.randn(1, 4, 8, 8, generator=generator),
            torch.tensor([400]),
            torch.randn(1, 5, 56, generator=generator),
            added_cond_kwargs=added,
        ).sample
    return result


def learned(unet: Any, **settings: Any) -> Bank:
    """A bank with an adapter ``style`` that changes what the UNet answers."""
    bank = Bank({"unet": unet})
    bank.add("style", settings.pop("targets", "attention"), rank=2, seed=1, **settings)
    with torch.no_grad():
        for name, parameter in bank.parameters_of("style"):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.2)
    return bank


def test_blocks_of_style_and_content_are_those_of_b_lora(unet: Any) -> None:
    for name, index in (("content-blocks", 0), ("style-blocks", 1)):
        block = unet.up_blocks[0].attentions[index]
        expected = {
            f"up_blocks.0.attentions.{index}.{path}.{part}"
            for path, module in block.named_modules()
            if type(module).__name__ == "Attention"
            for part in ("to_q", "to_k", "to_v", "to_out.0")
        }
        assert set(select(unet, name)) == expected
        assert describe(expected) == name
    both = select(unet, "style-and-content")
    assert set(both) == {*select(unet, "style-blocks"), *select(unet, "content-blocks")}
    assert describe(both) == "style-and-content"
    assert describe(select(unet, "attention")) == "attention"


def test_the_size_of_blocks_is_known_before_sdxl_is_loaded() -> None:
    from accelerate import init_empty_weights
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from trainer.bases.detect import read_json
    from trainer.bases.single_file import CONFIGS

    with init_empty_weights():
        whole: Any = UNet2DConditionModel.from_config(read_json(CONFIGS / "sdxl" / "unet" / "config.json"))
    for name in ("style-blocks", "content-blocks", "style-and-content"):
        layers = [whole.get_submodule(path) for path in select(whole, name)]
        assert SDXL.values_per_rank[name] == sum(layer.in_features + layer.out_features for layer in layers)


def test_one_of_two_blocks_trained_together_is_exported_alone(unet: Any, tmp_path: Path) -> None:
    bank = learned(unet, targets="style-and-content")
    weights = bank.weights_of("style")
    bank.detach()
    write_style(tmp_path / "both.safetensors", weights, metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    kept, rest = split(read_style(tmp_path / "both.safetensors"), "style")
    assert {path.removeprefix("unet.") for path in kept.layers} == set(select(unet, "style-blocks"))
    assert rest is not None
    assert {path.removeprefix("unet.") for path in rest.layers} == set(select(unet, "content-blocks"))


@pytest.mark.parametrize("factors", [{"down": 0.5, "up": 0.25}, {"mid": 0, "style": 1.5}, {"up": 0, "style": 1}, {}])
def test_a_block_counts_as_if_its_updates_were_so_much_larger(unet: Any, factors: dict[str, float]) -> None:
    bank = learned(unet)
    weights = bank.weights_of("style")
    bank.weigh("style", factors)
    bank.set_strengths({"style": 0.7})
    found = answer(unet)
    bank.detach()

    def wanted(path: str) -> float:
        part = path.split(".")[1].removesuffix("_blocks").removesuffix("_block")
        factor = factors.get(part, 1.0)
        halves = {"unet.up_blocks.0.attentions.0.": "content", "unet.up_blocks.0.attentions.1.": "style"}
        return next(
            (factors[half] for start, half in halves.items() if path.startswith(start) and half in factors), factor
        )

    bank.load("style", {path: replace(layer, up=layer.up * wanted(path)) for path, layer in weights.items()})
    bank.set_strengths({"style": 0.7})
    torch.testing.assert_close(found, answer(unet))
    bank.detach()


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "vera"])
def test_a_factor_on_all_blocks_is_a_strength_whatever_the_method(unet: Any, method: str) -> None:
    bank = learned(unet, targets="cross", method=method)
    bank.set_strengths({"style": 0.5})
    expected = answer(unet)
    bank.weigh("style", {"down": 0.5, "mid": 0.5, "up": 0.5})
    bank.set_strengths({"style": 1.0})
    torch.testing.assert_close(answer(unet), expected)
    bank.weigh("style", {})
    bank.set_strengths({"style": 0.5})
    torch.testing.assert_close(answer(unet), expected, rtol=0, atol=0)
    bank.detach()


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_blocks_of_a_training_are_in_its_file(unet: Any, tmp_path: Path, method: str) -> None:
    bank = learned(unet, method=method, blocks={"down": 0.5, "mid": 0})
    assert not any("mid_block" in path for path in bank["style"].spec.targets)
    expected = answer(unet)
    write_style(tmp_path / "style.safetensors", bank.weights_of("style"))
    bank.detach()
    names = {"unet": [path for path, _ in unet.named_modules()]}
    bank.load("again", read_style(tmp_path / "style.safetensors", names).layers)
    torch.testing.assert_close(answer(unet), expected)
    bank.detach()
    whole = learned(unet, method=method)
    assert not torch.allclose(answer(unet), expected, atol=1e-3)
    whole.detach()


def test_blocks_are_written_as_names_with_numbers() -> None:
    assert read_blocks(" down=0.5, mid = 0 ,") == {"down": 0.5, "mid": 0.0}
    assert read_blocks("") == {}
    assert read_blocks(blocks_text({"down": 0.5, "mid": 1, "up": 2})) == {"down": 0.5, "up": 2}
    assert factor_of("te1.text_model.encoder.layers.0.self_attn.q_proj", {"up": 0}) == 1
    for wrong in ("down", "left=1", "down=-1", "up=nan", "up=5", "up=x"):
        with pytest.raises(ConfigError, match=r"--blocks is .*; the names are " + ", ".join(BLOCKS)):
            read_blocks(wrong, "--blocks")
    with pytest.raises(ConfigError, match=r"adapter\.blocks"):
        parse({"adapter": {"blocks": "left=1"}})
    with pytest.raises(ConfigError, match="'dora' has no strength of each block"):
        parse({"adapter": {"blocks": "up=0.5", "method": "dora"}})

"""What is written is read back: every layout, every family's names, ranks and alphas that differ by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer import safetensors_file
from trainer.adapters.layers import adaptable
from trainer.adapters.weights import LayerWeights
from trainer.bases.families import FAMILIES, SD1, SDXL
from trainer.errors import AdapterFileError
from trainer.styles.read import read_style
from trainer.styles.write import Layout, write_style

LAYOUTS: tuple[Layout, ...] = ("kohya", "diffusers")
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
SHAPES = {
    f"unet.{ATTENTION}.attn2.to_k": (16, 24),
    f"unet.{ATTENTION}.ff.net.0.proj": (32, 16),
    "unet.down_blocks.0.resnets.1.conv1": (8, 8, 3, 3),
    "unet.down_blocks.0.downsamplers.0.conv": (8, 8, 3, 3),
    "unet.up_blocks.1.upsamplers.0.conv": (8, 8, 3, 3),
    "unet.mid_block.resnets.1.time_emb_proj": (8, 32),
    "unet.up_blocks.0.attentions.2.proj_in": (16, 16, 1, 1),
    "unet.conv_in": (8, 4, 3, 3),
    "unet.add_embedding.linear_2": (32, 32),
    "te1.text_model.encoder.layers.0.self_attn.q_proj": (16, 16),
    "te2.text_model.encoder.layers.1.mlp.fc1": (32, 16),
}
ONE_ENCODER = {f"te{path[3:]}" if path.startswith("te1") else path: shape for path, shape in SHAPES.items()}

Sizes = st.fixed_dictionaries(
    {path: st.tuples(st.integers(1, 4), st.sampled_from([0.5, 1, 3, 4, 16])) for path in SHAPES}
)


def weights_for(family: str, sizes: dict[str, tuple[int, float]], dtype: torch.dtype) -> dict[str, LayerWeights]:
    rng = torch.Generator().manual_seed(0)
    weights = {}
    for (path, shape), (rank, alpha) in zip(
        (SHAPES if family == "sdxl" else ONE_ENCODER).items(), sizes.values(), strict=True
    ):
        if family != "sdxl" and path.startswith(("te2", "unet.add_embedding")):
            continue
        down, up = torch.randn(rank, *shape[1:], generator=rng), torch.randn(shape[0], rank, generator=rng)
        up = up[:, :, None, None] if len(shape) == 4 else up
        weights[path] = LayerWeights(down.to(dtype), up.to(dtype), alpha)
    return weights


def update(layer: LayerWeights) -> torch.Tensor:
    return layer.scale * (layer.up.double().flatten(1) @ layer.down.double().flatten(1))


@pytest.mark.parametrize("family", ["bundled", "sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("layout", LAYOUTS)
@given(sizes=Sizes)
def test_every_update_comes_back(tmp_path: Path, family: str, layout: Layout, sizes: Any) -> None:
    weights = weights_for(family, sizes, torch.float32)
    write_style(tmp_path / "a.safetensors", weights, layout=layout, metadata={"patina.family": family})
    layers = read_style(tmp_path / "a.safetensors").layers
    assert layers.keys() == weights.keys()
    for path, layer in layers.items():
        assert torch.equal(layer.down, weights[path].down)
        torch.testing.assert_close(update(layer), update(weights[path]), rtol=2e-6, atol=1e-6)
        if layer.alpha == weights[path].alpha:
            assert torch.equal(layer.up, weights[path].up), "bit for bit"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_keeps_the_update_within_its_rounding(
    tmp_path: Path, layout: Layout, dtype: torch.dtype
) -> None:
    sizes = dict.fromkeys(SHAPES, (4, 3.0))
    weights = weights_for("sdxl", sizes, torch.float32)
    write_style(tmp_path / "a.safetensors", weights, layout=layout, metadata={"patina.family": "sdxl"}, dtype=dtype)
    for path, layer in read_style(tmp_path / "a.safetensors").layers.items():
        exact = update(weights[path])
        assert (update(layer) - exact).norm() < 2 * torch.finfo(dtype).eps * exact.norm()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_file_of_one_alpha_comes_back_bit_for_bit(tmp_path: Path, family: str, layout: Layout) -> None:
    """Of a scale that is a power of two, multiplying it in loses nothing, so that holds in diffusers' layout too."""
    weights = weights_for(family, dict.fromkeys(SHAPES, (4, 2.0)), torch.float32)
    write_style(tmp_path / "a.safetensors", weights, layout=layout, metadata={"patina.family": family})
    for path, layer in read_style(tmp_path / "a.safetensors").layers.items():
        assert torch.equal(layer.up * layer.scale, weights[path].up * weights[path].scale)
        assert torch.equal(layer.down, weights[path].down)


def names_in(path: Path) -> set[str]:
    return {key.split(".")[0] for key in safetensors_file.read_header(path, AdapterFileError).entries}


def test_sdxl_files_have_the_names_of_the_original_code_and_the_others_diffusers(tmp_path: Path) -> None:
    """As the trainers of the field write them, so that merging and training further find every layer."""
    for family, metadata in (("sdxl", {"ss_base_model_version": "sdxl_base_v1-0"}), ("sd1", {}), ("sd2", {})):
        weights = weights_for(family, dict.fromkeys(SHAPES, (2, 2.0)), torch.float32)
        write_style(tmp_path / f"{family}.safetensors", weights, metadata=metadata or {"patina.family": family})
    names = names_in(tmp_path / "sdxl.safetensors")
    assert {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k",
        "lora_unet_input_blocks_2_0_in_layers_2",
        "lora_unet_input_blocks_3_0_op",
        "lora_unet_output_blocks_5_2_conv",
        "lora_unet_middle_block_2_emb_layers_1",
        "lora_unet_input_blocks_0_0",
        "lora_unet_label_emb_0_2",
        "lora_te2_text_model_encoder_layers_1_mlp_fc1",
    } < names
    assert not any("down_blocks" in name for name in names)
    for family in ("sd1", "sd2"):
        names = names_in(tmp_path / f"{family}.safetensors")
        assert "lora_unet_down_blocks_0_downsamplers_0_conv" in names
        assert not any("input_blocks" in name for name in names)


def test_what_a_file_is_for_decides_its_names_even_without_metadata(tmp_path: Path) -> None:
    wide = {
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": LayerWeights(
            torch.ones(1, 2048), torch.ones(4, 1), 1.0
        )
    }
    write_style(tmp_path / "a.safetensors", wide)
    assert read_style(tmp_path / "a.safetensors").layout == "kohya, original names"
    assert [family.key for family in FAMILIES.values() if family.original_names] == [SDXL.key]
    assert SD1.v2 is False


def test_alpha_is_the_rank_in_diffusers_layout(tmp_path: Path) -> None:
    """Every program but diffusers takes it for that, and would apply the style too strongly or too weakly."""
    weights = weights_for("sd1", dict.fromkeys(SHAPES, (4, 1.0)), torch.float32)
    metadata = {"ss_network_dim": "4", "ss_network_alpha": "1.0"}
    write_style(tmp_path / "a.safetensors", weights, layout="diffusers", metadata=metadata)
    file = read_style(tmp_path / "a.safetensors")
    assert {layer.scale for layer in file.layers.values()} == {1.0}
    assert file.metadata["ss_network_alpha"] == "4"
    write_style(tmp_path / "b.safetensors", file.layers, metadata=file.metadata)
    for path, layer in read_style(tmp_path / "b.safetensors").layers.items():
        torch.testing.assert_close(update(layer), update(weights[path]))


def test_every_layer_of_a_model_is_found_again_under_its_original_name(sdxl_pipeline: Any, tmp_path: Path) -> None:
    paths = {p: m for p, m in sdxl_pipeline.unet.named_modules() if adaptable(m)}
    weights = {}
    for path, module in paths.items():
        up = torch.ones(module.weight.shape[0], 1, *[1] * (module.weight.dim() - 2))
        weights[f"unet.{path}"] = LayerWeights(torch.ones(1, *module.weight.shape[1:]), up, 1.0)
    write_style(tmp_path / "a.safetensors", weights, metadata={"patina.family": "sdxl"})
    names = [name for name, _ in sdxl_pipeline.unet.named_modules()]
    assert read_style(tmp_path / "a.safetensors", {"unet": names}).layers.keys() == weights.keys()
    assert read_style(tmp_path / "a.safetensors").layers.keys() == weights.keys()

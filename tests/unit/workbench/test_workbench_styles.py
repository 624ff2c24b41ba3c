"""Tools that make styles of styles: what they promise holds, and the file says how it was made."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_styles import updates

from trainer.adapters.bank import Bank
from trainer.errors import AdapterFileError, ConfigError
from trainer.safetensors_file import HASH_KEY
from trainer.styles.file import StyleFile
from trainer.styles.fit import attach
from trainer.styles.metadata import sshs_model_hash
from trainer.styles.read import read_style
from trainer.workbench.convert import convert
from trainer.workbench.diff import diff
from trainer.workbench.made import KEY, Made
from trainer.workbench.merge import Ingredient, merge
from trainer.workbench.resize import resize
from trainer.workbench.split import split

Make = Callable[..., StyleFile]
CONV_TOO = r".*\.attn2\.to_q|.*\.conv1"


def written(made: Made, path: Path, **how: Any) -> StyleFile:
    made.write(path, **how)
    return read_style(path)


def answer(unet: Any, inputs: Any, run: Any, *uses: tuple[StyleFile, float]) -> torch.Tensor:
    bank = Bank({"unet": unet})
    for number, (file, _) in enumerate(uses):
        attach(bank, str(number), file)
    bank.set_strengths({str(number): strength for number, (_, strength) in enumerate(uses)})
    output: torch.Tensor = run(unet, inputs)
    bank.detach()
    return output


def far(first: StyleFile, second: StyleFile) -> float:
    """Norm of the difference of two styles' updates, relative to the first's."""
    one, other = updates(first), updates(second)
    assert one.keys() == other.keys()
    size = sum(float(update.square().sum()) for update in one.values())
    return (sum(float((one[path] - other[path]).square().sum()) for path in one) / size) ** 0.5


# ---- merge


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_merge_side_by_side_is_what_the_bank_blends(
    unet: Any, inputs: Any, run: Any, make_style: Make, tmp_path: Path, layout: Any
) -> None:
    ink = make_style("ink", 1, targets=CONV_TOO)
    wash = make_style("wash", 2, targets="all-linear", rank=2, method="rslora")
    blend = answer(unet, inputs, run, (ink, 0.7), (wash, -0.4))
    whole = written(merge([Ingredient(ink, 0.7), Ingredient(wash, -0.4)]), tmp_path / "m.safetensors", layout=layout)
    assert whole.layers.keys() == ink.layers.keys() | wash.layers.keys()
    merged = answer(unet, inputs, run, (whole, 1.0))
    assert float((merged - blend).abs().max()) <= 1e-6 * max(1.0, float(blend.abs().max()))
    assert float((merged - run(unet, inputs)).abs().max()) > 1e-3


def test_a_merge_that_a_layer_has_no_room_for_loses_nothing(make_style: Make, tmp_path: Path) -> None:
    wide, other = make_style("wide", 1, rank=12), make_style("other", 2, rank=10)
    made = merge([Ingredient(wide), Ingredient(other)])
    assert {layer.rank for layer in made.layers.values()} == {16, 22}, "layers of 16 channels have room for 16"
    one, two, whole = updates(wide), updates(other), updates(written(made, tmp_path / "m.safetensors"))
    for path, update in whole.items():
        torch.testing.assert_close(update, one[path] + two[path], rtol=1e-5, atol=1e-5)


def test_a_merge_to_a_rank_is_the_best_there_is_and_says_what_it_lost(make_style: Make, tmp_path: Path) -> None:
    ink, wash = make_style("ink", 1), make_style("wash", 2)
    made = merge([Ingredient(ink, 0.5), Ingredient(wash, 0.5)], rank=4)
    assert {layer.rank for layer in made.layers.values()} == {4}
    lost = total = 0.0
    one, two, small = updates(ink), updates(wash), updates(written(made, tmp_path / "m.safetensors"))
    for path, update in small.items():
        exact = 0.5 * one[path] + 0.5 * two[path]
        sizes = torch.linalg.svdvals(exact)
        assert float((exact - update).square().sum()) == pytest.approx(float(sizes[4:].square().sum()), rel=1e-3)
        lost += float(sizes[4:].square().sum())
        total += float(sizes.square().sum())
    assert 0 < made.lost == pytest.approx(lost / total, rel=1e-6)
    assert f"{made.lost:.2%}" in " ".join(made.notes)


def test_styles_for_other_bases_are_not_merged(make_style: Make) -> None:
    ink = make_style("ink", metadata={"patina.family": "sd1"})
    other = make_style("other", metadata={"patina.family": "sdxl"})
    with pytest.raises(AdapterFileError, match=r"Stable Diffusion 1 and .* for Stable Diffusion XL"):
        merge([Ingredient(ink), Ingredient(other)])
    with pytest.raises(ConfigError, match="two styles or more"):
        merge([Ingredient(ink)])
    with pytest.raises(ConfigError, match="should be a finite number"):
        merge([Ingredient(ink), Ingredient(ink, math.inf)])


def test_a_style_whose_change_depends_on_the_base_is_sent_to_extraction(make_style: Make) -> None:
    dora = make_style("dora", method="dora")
    for tool in (lambda: merge([Ingredient(dora), Ingredient(dora)]), lambda: resize(dora, rank=1)):
        with pytest.raises(AdapterFileError, match="patina extract --style"):
            tool()


# ---- resize


def test_full_rank_changes_nothing(make_style: Make, tmp_path: Path) -> None:
    style = make_style("ink", targets="all-linear", rank=5)
    same = written(resize(style, energy=1.0), tmp_path / "e.safetensors")
    assert far(style, same) < 1e-5
    untouched = written(resize(style, rank=5), tmp_path / "r.safetensors")
    assert all(torch.equal(layer.up, untouched.layers[path].up) for path, layer in style.layers.items())
    assert resize(style, rank=9).lost == resize(style, energy=1.0).lost == 0.0


def test_energy_gives_each_layer_the_rank_it_needs(make_style: Make, tmp_path: Path) -> None:
    style = make_style("ink", targets=CONV_TOO, rank=6)
    made = resize(style, energy=0.8)
    for path, update in updates(style).items():
        held = torch.linalg.svdvals(update).square().cumsum(0) / update.square().sum()
        rank = made.layers[path].rank
        assert float(held[rank - 1]) >= 0.8 - 1e-9
        assert rank == 1 or float(held[rank - 2]) < 0.8
    assert 0 < made.lost <= 0.2
    assert far(style, written(made, tmp_path / "s.safetensors")) == pytest.approx(made.lost**0.5, rel=1e-3)
    assert max(layer.rank for layer in resize(style, energy=0.8, rank=2).layers.values()) <= 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "Say to what"),
        ({"rank": 0}, "--rank is 0"),
        ({"energy": 1.5}, "--energy is 1.5"),
        ({"energy": 0.0}, "is 0,"),
    ],
)
def test_a_size_that_cannot_be_is_refused(make_style: Make, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resize(make_style("ink"), **asked)


def test_a_style_that_changes_nothing_can_be_resized(make_style: Make, tmp_path: Path) -> None:
    made = resize(make_style("none", size=0.0), energy=0.9)
    assert made.lost == 0.0
    assert {layer.rank for layer in written(made, tmp_path / "n.safetensors").layers.values()} == {1}


# ---- convert, split, diff


def test_converting_keeps_every_value_and_says_where_it_came_from(make_style: Make, tmp_path: Path) -> None:
    style = make_style("ink", metadata={"ss_network_dim": "3", "modelspec.trigger_phrase": "ink style"})
    there = written(convert(style), tmp_path / "d.safetensors", layout="diffusers")
    back = written(convert(there), tmp_path / "k.safetensors")
    assert far(style, back) < 1e-7
    assert back.metadata["modelspec.trigger_phrase"] == "ink style"
    history = json.loads(back.metadata[KEY])
    assert (history["how"], history["of"][0]["made"]["how"]) == ("convert", "convert")
    assert history["of"][0]["made"]["of"][0]["weights"] == sshs_model_hash(style.path)
    half = written(convert(style), tmp_path / "h.safetensors", dtype=torch.float16)
    assert {layer.down.dtype for layer in half.layers.values()} == {torch.float16}


def test_two_halves_make_the_whole(make_style: Make, tmp_path: Path) -> None:
    style = make_style("ink", targets="attention")
    kept, rest = split(style, "cross")
    assert rest is not None
    assert kept.layers.keys() == {path for path in style.layers if ".attn2." in path}
    parts = [
        Ingredient(written(kept, tmp_path / "a.safetensors")),
        Ingredient(written(rest, tmp_path / "b.safetensors")),
    ]
    assert far(style, written(merge(parts), tmp_path / "c.safetensors")) < 1e-6
    assert split(style, r"unet\..*")[1] is None


def test_style_and_content_lie_in_two_blocks_of_sdxl_alone(make_style: Make) -> None:
    def layers(*blocks: str) -> dict[str, Any]:
        layer = next(iter(make_style("ink").layers.values()))
        return {f"unet.{block}.transformer_blocks.0.attn2.to_q": layer for block in blocks}

    blocks = ("up_blocks.0.attentions.0", "up_blocks.0.attentions.1", "down_blocks.1.attentions.0")
    ink = make_style("ink", metadata={"patina.family": "sdxl"})
    style = StyleFile(ink.path, "kohya", layers(*blocks), ink.metadata)
    assert split(style, "style")[0].layers.keys() == layers(blocks[1]).keys()
    assert split(style, "content")[0].layers.keys() == layers(blocks[0]).keys()
    assert split(style, "style")[0].metadata["ss_output_name"] == "ink style"
    with pytest.raises(AdapterFileError, match="not known to be for Stable Diffusion XL"):
        split(make_style("small", metadata={"patina.family": "sd1"}), "style")


def test_a_split_that_matches_nothing_shows_what_paths_look_like(make_style: Make) -> None:
    with pytest.raises(ConfigError, match=r"matches no layer of .*down_blocks"):
        split(make_style("ink"), "encoder")
    with pytest.raises(ConfigError, match=r"^--keep "):
        split(make_style("ink"), "(")


def test_a_difference_is_told_in_settings_layers_norms_and_angles(make_style: Make, tmp_path: Path) -> None:
    ink = make_style("ink", 1, metadata={"ss_steps": "300", "ss_seed": "1"})
    wash = make_style("wash", 2, targets="cross", metadata={"ss_steps": "400", "ss_seed": "1"})
    found = diff(ink, wash)
    assert found.names == ("ink", "wash")
    assert found.settings["ss_steps"] == ("300", "400")
    assert "ss_seed" not in found.settings
    assert set(found.only_first) == {path for path in ink.layers if ".attn1." in path}
    assert not found.only_second
    one, other = updates(ink), updates(wash)
    for layer in found.layers:
        assert layer.norms == pytest.approx((float(one[layer.path].norm()), float(other[layer.path].norm())))
        assert layer.distance == pytest.approx(float((one[layer.path] - other[layer.path]).norm()))
        cosine = float((one[layer.path] * other[layer.path]).sum()) / (layer.norms[0] * layer.norms[1])
        assert layer.angle == pytest.approx(math.acos(cosine))
    assert json.dumps(found.to_dict())
    doubled = written(merge([Ingredient(ink), Ingredient(ink)]), tmp_path / "2.safetensors")
    again = diff(ink, doubled)
    assert again.angle < 1e-6
    assert again.norms[1] == pytest.approx(2 * again.norms[0])
    assert diff(ink, ink).same_update
    assert not again.same_update


# ---- what a file says of itself


def test_a_merge_keeps_what_all_agree_on_and_names_what_it_is_made_of(make_style: Make, tmp_path: Path) -> None:
    shared = {"patina.family": "sd1", "modelspec.license": "cc0", HASH_KEY: "old"}
    ink = make_style("ink", 1, metadata={**shared, "modelspec.trigger_phrase": "ink style", "ss_steps": "300"})
    wash = make_style("wash", 2, metadata={**shared, "modelspec.trigger_phrase": "wash style", "ss_steps": "400"})
    made = written(merge([Ingredient(ink, 0.7), Ingredient(wash)], rank=4, name="both"), tmp_path / "m.safetensors")
    said = made.metadata
    assert said["modelspec.license"] == "cc0"
    assert "ss_steps" not in said
    assert "modelspec.trigger_phrase" not in said
    assert said["modelspec.usage_hint"] == "Triggers: ink style (ink); wash style (wash)."
    assert (said["ss_output_name"], said["ss_network_dim"], said["ss_network_alpha"]) == ("both", "4", "4.0")
    history = json.loads(said[KEY])
    assert history == {
        "how": "merge",
        "rank": 4,
        "of": [
            {"name": "ink", "weights": sshs_model_hash(ink.path), "strength": 0.7},
            {"name": "wash", "weights": sshs_model_hash(wash.path), "strength": 1.0},
        ],
    }
    assert said[HASH_KEY] == sshs_model_hash(made.path)

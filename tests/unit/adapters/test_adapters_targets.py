"""Which layers a target names."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from trainer.adapters.bank import Bank
from trainer.adapters.targets import MAX_PATTERN, OF_SDXL, TARGETS, describe, select
from trainer.errors import ConfigError

KINDS = {
    "cross": {"attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"},
    "qv": {"attn1.to_q", "attn1.to_v", "attn2.to_q", "attn2.to_v"},
    "self": {"attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"},
}


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in OF_SDXL])
def test_named_targets_are_what_they_say(unet: Any, name: str) -> None:
    paths = select(unet, name)
    kinds = {path.split("transformer_blocks.0.")[1] for path in paths}
    if name in KINDS:
        assert kinds == KINDS[name]
    else:
        extra = {"ff.net.0.proj", "ff.net.2"} if name == "all-linear" else set()
        assert kinds == KINDS["cross"] | KINDS["self"] | extra
    modules = [path for path, _ in unet.named_modules()]
    assert paths == sorted(paths, key=modules.index)
    assert describe(paths) == name


def test_linear_projections_around_attention_are_not_among_the_named_targets(make_unet: Any) -> None:
    assert not any("proj_in" in path for path in select(make_unet(use_linear_projection=True), "all-linear"))


def test_an_expression_may_name_convolutions(unet: Any) -> None:
    paths = select(unet, r"(down_blocks|mid_block)\..*\.conv[12]|conv_in")
    assert "conv_in" in paths
    assert all(path.endswith(("conv1", "conv2", "conv_in")) for path in paths)
    assert describe(paths).startswith("custom: ")


def test_a_wrapped_layer_is_chosen_once_and_under_its_own_name(unet: Any) -> None:
    before = select(unet, ".*")
    Bank({"unet": unet}).add("a", "all-linear", rank=2, seed=0)
    assert select(unet, ".*") == before


def test_the_whole_path_must_match(unet: Any) -> None:
    with pytest.raises(ConfigError, match="matches no layer") as caught:
        select(unet, "attn2")
    examples = re.findall(r"[\w.]*(?:to_q|to_k|conv|linear|proj|emb)[\w.]*", str(caught.value))
    assert "adapter.targets" in str(caught.value)
    assert len(examples) >= 3


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "[", "x" * (MAX_PATTERN + 1), "(" * 400])
def test_a_broken_expression_names_the_field(unet: Any, pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"adapter\.targets"):
        select(unet, pattern)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        # A quick processor comes to the end of this one.
        (r"(([\w.])+)+[!?]", "takes too long|matches no layer"),
        (r"([\w.]|\w\w|\w\.)+[!?]", "takes too long"),
        ("(?x)x{ 9 9 9 9 }", "neither white space nor #"),
        ("(((.{1000}){1000}){1000})", "repeats parts of itself more than 1000 times"),
        ("(?:(?:x{100}){0,100})", "repeats parts"),
    ],
)
def test_an_expression_that_would_run_without_end_is_refused_quickly(unet: Any, pattern: str, sentence: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match=sentence):
        select(unet, pattern)
    assert time.process_time() - start < 5


def test_thirty_times_anything_or_nothing_is_answered_quickly(unet: Any) -> None:
    start = time.process_time()
    paths = select(unet, ".?" * 30)
    assert time.process_time() - start < 5
    assert paths == [path for path in select(unet, ".*") if len(path) <= 30]

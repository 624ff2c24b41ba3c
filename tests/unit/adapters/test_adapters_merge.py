"""Merging into the weights and taking it out again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainer.adapters.bank import Bank
from trainer.adapters.merge import merge, unmerge
from trainer.errors import ConfigError, RunError

CONV_TOO = r".*\.attn2\.to_q|.*\.conv1"


def two_styles(unet: nn.Module, awaken: Any) -> Bank:
    bank = Bank({"unet": unet})
    bank.add("a", CONV_TOO, rank=3, alpha=2, seed=0)
    bank.add("b", "all-linear", rank=4, method="rslora", seed=1)
    awaken(bank, "a", 1, 0.2)
    awaken(bank, "b", 2, 0.2)
    return bank


def test_merged_equals_unmerged_and_unmerging_restores_every_bit(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    bank = two_styles(unet, awaken)
    pristine = {path: layer.weight.clone() for path, layer in bank.layers.items()}
    bank.set_strengths({"a": 0.6, "b": -0.8})
    live = run(unet, inputs)
    report = merge(bank)
    assert bank.merged
    assert (report.layers, report.dtype, report.lost) == (len(bank.layers), "float32", 0.0)
    assert report.strengths == pytest.approx({"a": 0.6, "b": -0.8})
    torch.testing.assert_close(run(unet, inputs), live, rtol=1e-4, atol=1e-5)
    unmerge(bank)
    assert all(torch.equal(layer.weight, pristine[path]) for path, layer in bank.layers.items())
    assert torch.equal(run(unet, inputs), live)


def test_the_weights_stay_where_they_are_in_memory(unet: Any, awaken: Any) -> None:
    bank = two_styles(unet, awaken)
    addresses = [layer.weight.data_ptr() for layer in bank.layers.values()]
    merge(bank, {"a": 1.0})
    assert [layer.weight.data_ptr() for layer in bank.layers.values()] == addresses


def test_half_precision_says_what_rounding_took(unet: Any, awaken: Any) -> None:
    unet.to(torch.bfloat16)
    bank = Bank({"unet": unet})
    bank.add("a", "cross", rank=4, seed=0)
    awaken(bank, "a", size=0.01)
    pristine = {path: layer.weight.clone() for path, layer in bank.layers.items()}
    state = bank.state_dict_of("a")
    lost = size = 0.0
    report = merge(bank, {"a": 1.0})
    for path, layer in bank.layers.items():
        update = state[f"{path}.up"] @ state[f"{path}.down"]
        kept = layer.weight.float() - pristine[path].float()
        assert torch.equal(layer.weight, (pristine[path].float() + update).bfloat16())
        lost += float((kept - update).square().sum())
        size += float(update.square().sum())
    assert report.lost == pytest.approx((lost / size) ** 0.5, rel=1e-3)
    assert 0.01 < report.lost <= report.worst_lost
    assert f"{report.lost:.1%} of the update" in report.sentence()
    unmerge(bank)
    assert all(torch.equal(layer.weight, pristine[path]) for path, layer in bank.layers.items())


def test_merging_twice_is_refused_and_so_is_everything_that_would_be_lost(unet: Any, awaken: Any) -> None:
    bank = two_styles(unet, awaken)
    merge(bank, {"a": 1.0})
    with pytest.raises(RunError, match="already"):
        merge(bank)
    for forbidden in (
        lambda: bank.set_strengths({"a": 0.5}),
        lambda: bank.remove("a"),
        lambda: bank.add("c", "cross", rank=1, seed=0),
    ):
        with pytest.raises(RunError, match="unmerge"):
            forbidden()
    with pytest.raises(RunError, match="unmerge"), bank.detached():
        pass


def test_only_one_strength_for_each_adapter_can_be_merged(unet: Any, awaken: Any) -> None:
    bank = two_styles(unet, awaken)
    bank.set_strengths(torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
    with pytest.raises(ConfigError, match="differ within the batch"):
        merge(bank)
    assert not bank.merged


def test_an_empty_bank_has_nothing_to_merge(unet: Any) -> None:
    with pytest.raises(RunError, match="no adapter"):
        merge(Bank({"unet": unet}))


def test_detaching_a_merged_bank_gives_the_base_back(unet: Any, inputs: Any, run: Any, awaken: Any) -> None:
    base = run(unet, inputs)
    bank = two_styles(unet, awaken)
    merge(bank, {"a": 1.0, "b": 1.0})
    bank.detach()
    assert torch.equal(run(unet, inputs), base)

"""Keys and values of learned tokens, on whole attention layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainer.adapters.bank import Bank
from trainer.adapters.merge import merge
from trainer.errors import AdapterFileError, ConfigError, RunError
from trainer.styles.fit import attach
from trainer.styles.inspect import inspect_file
from trainer.styles.read import read_style
from trainer.styles.write import write_style
from trainer.workbench.resize import resize

pytestmark = pytest.mark.model


def prefix_in(unet: nn.Module, targets: str = "cross", rank: int = 3) -> Bank:
    bank = Bank({"unet": unet})
    bank.add("it", targets, rank=rank, method="prefix", seed=1)
    return bank


def stir(bank: Bank, name: str, seed: int = 7) -> None:
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in bank.parameters_of(name):
            parameter.add_(torch.randn(parameter.shape, generator=rng))


def test_every_cross_attention_has_its_tokens_and_starts_as_it_was(make_unet: Any, make_inputs: Any, run: Any) -> None:
    unet, given = make_unet(), make_inputs(2)
    names, base = [name for name, _ in unet.named_modules()], run(unet, given)
    bank = prefix_in(unet, "all-linear")
    crossing = [f"unet.{path}" for path, module in unet.named_modules() if path.endswith("attn2")]
    assert list(bank["it"].spec.targets) == crossing
    assert torch.equal(run(unet, given), base)
    stir(bank, "it")
    whole = run(unet, given)
    assert not torch.allclose(whole, base, atol=1e-3)
    bank.close()
    assert torch.equal(run(unet, given), base)
    bank.set_strengths(torch.tensor([[1.0], [0.0]]))
    rows = run(unet, given)
    torch.testing.assert_close(rows[0], whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows[1], base[1], rtol=1e-4, atol=1e-5)
    with bank.detached():
        assert [name for name, _ in unet.named_modules()] == names
        assert torch.equal(run(unet, given), base)
    bank.set_strengths({"it": 1.0})
    assert torch.equal(run(unet, given), whole)
    bank.detach()
    assert [name for name, _ in unet.named_modules()] == names
    with pytest.raises(ConfigError, match=r"names no layer that adapter\.method 'prefix' can adapt"):
        prefix_in(make_unet(), "self")


def test_tokens_are_attended_to_with_a_softmax_of_their_own_whatever_else_is_in_the_layer(make_unet: Any) -> None:
    unet = make_unet()
    bank = prefix_in(unet)
    path = bank["it"].spec.targets[0]
    attention = unet.get_submodule(path.removeprefix("unet."))
    stir(bank, "it")
    rng = torch.Generator().manual_seed(2)
    width, text = attention.to_q.in_features, attention.to_k.in_features
    x, words = torch.randn(2, 5, width, generator=rng), torch.randn(2, 4, text, generator=rng)
    with bank.detached():
        plain = attention(x, encoder_hidden_states=words)
    state = bank.state_dict_of("it")
    keys, values = (state[f"{path}.{part}"].unflatten(1, (attention.heads, -1)) for part in ("keys", "contents"))
    queries = attention.to_q(x).unflatten(2, (attention.heads, -1))
    weights = F.softmax(torch.einsum("bnhd,mhd->bhnm", queries, keys) * attention.scale, dim=-1)
    seen = torch.einsum("bhnm,mhd->bnhd", weights, values).flatten(2)
    moved = seen @ attention.to_out[0].weight.T
    bank.set_strengths({"it": 0.5})
    torch.testing.assert_close(attention(x, encoder_hidden_states=words), plain + 0.5 * moved, rtol=1e-4, atol=1e-5)

    bank.add("lora", "cross", rank=2, seed=3)
    stir(bank, "lora", seed=4)
    bank.set_strengths({"lora": 1.0})
    alone = attention(x, encoder_hidden_states=words)
    bank.set_strengths({"lora": 1.0, "it": 0.5})
    torch.testing.assert_close(attention(x, encoder_hidden_states=words), alone + 0.5 * moved, rtol=1e-4, atol=1e-5)
    bank.remove("it")
    bank.set_strengths({"lora": 1.0})
    assert torch.equal(attention(x, encoder_hidden_states=words), alone)


def test_gradients_are_the_same_when_passes_are_computed_twice(make_unet: Any, make_inputs: Any) -> None:
    found = []
    for checkpointing in (False, True):
        unet, given = make_unet(), make_inputs(1)
        bank = prefix_in(unet)
        stir(bank, "it")
        unet.train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet(**given).sample.square().mean().backward()
        found.append({key: parameter.grad for key, parameter in bank.parameters_of("it")})
    for key, gradient in found[0].items():
        assert gradient is not None
        assert bool(gradient.any())
        torch.testing.assert_close(found[1][key], gradient)


def test_a_file_of_tokens_is_read_back_by_us_alone(make_unet: Any, make_inputs: Any, run: Any, tmp_path: Path) -> None:
    bank, given = prefix_in(make_unet()), make_inputs(2)
    stir(bank, "it")
    path = tmp_path / "it.safetensors"
    write_style(path, bank.weights_of("it"))
    other = Bank({"unet": make_unet()})
    attach(other, "read", read_style(path, {"unet": [name for name, _ in other.roots["unet"].named_modules()]}))
    assert torch.equal(run(other.roots["unet"], given), run(bank.roots["unet"], given))
    assert read_style(path).layers.keys() == bank.weights_of("it").keys(), "without a model, too"
    assert [note for note in inspect_file(path).notes if "only Patina reads" in note]
    with pytest.raises(RunError, match="made with prefix cannot be merged"):
        merge(bank)
    with pytest.raises(AdapterFileError, match="so no LoRA can be made of it"):
        resize(read_style(path), rank=1)
    with pytest.raises(RunError, match="for which the diffusers layout has no place"):
        write_style(tmp_path / "no.safetensors", bank.weights_of("it"), layout="diffusers")

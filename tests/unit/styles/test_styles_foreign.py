"""What LyCORIS and PEFT make of their own files, and what is made of them here, layer by layer."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.adapters.bank import Bank
from trainer.adapters.merge import merge, unmerge
from trainer.adapters.methods import method_of
from trainer.adapters.weights import LayerWeights
from trainer.styles.file import StyleFile
from trainer.styles.fit import attach
from trainer.styles.inspect import inspect_file
from trainer.styles.names import flatten
from trainer.styles.read import read_style
from trainer.styles.write import write_style

LYCORIS: dict[str, dict[str, Any]] = {
    "LoCon": {"algo": "locon"},
    "LoCon with Tucker's core": {"algo": "locon", "use_tucker": True},
    "LoCon by the root of its rank": {"algo": "locon", "rs_lora": True},
    "DoRA": {"algo": "locon", "dora_wd": True},
    "LoHa": {"algo": "loha"},
    "LoHa of a high rank": {"algo": "loha", "linear_dim": 7},
    "LoHa with Tucker's cores": {"algo": "loha", "use_tucker": True},
    "LoKr": {"algo": "lokr", "factor": 2},
    "LoKr of two factors": {"algo": "lokr", "factor": -1, "decompose_both": True, "linear_dim": 1},
    "LoKr of whole matrices": {"algo": "lokr", "factor": 4, "full_matrix": True},
    "LoKr with Tucker's core": {"algo": "lokr", "factor": 2, "use_tucker": True, "conv_dim": 1},
    "LoKr the other way round": {"algo": "lokr", "factor": 4, "unbalanced_factorization": True},
    "GLoRA": {"algo": "glora"},
    "whole differences": {"algo": "full"},
}


def lycoris_network(unet: nn.Module, settings: dict[str, Any]) -> Any:
    """A network of LyCORIS's own on every linear layer and convolution, with an update that is not zero."""
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    from lycoris import create_lycoris

    whole = {"linear_dim": 2, "linear_alpha": 1.0, "conv_dim": 2, "conv_alpha": 3.0} | settings
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng():
        torch.manual_seed(0)
        network = create_lycoris(unet, 1.0, **whole)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in network.loras:
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.2)
    return network


def own_updates(network: Any) -> dict[str, tuple[Tensor, Tensor | None]]:
    """What LyCORIS adds to weight and bias of each layer, by its name there."""
    updates = {}
    for module in network.loras:
        with torch.no_grad():
            weight, bias = module.get_diff_weight()
            if getattr(module, "wd", False):
                weight = module.get_merged_weight()[0] - module.org_weight
            elif hasattr(module, "get_weight") and module.name != "locon":
                # What it trains and draws with; its `get_diff_weight` counts alpha / r a second time.
                weight = module.get_weight(module.shape)
            updates[module.lora_name] = weight.detach().clone(), None if bias is None else bias.detach().clone()
    return updates


def saved(network: Any, path: Path) -> None:
    """The network's file. Modules of whole differences, which are not in use, hold the difference as it is."""
    tensors = {}
    for module in network.loras:
        whole = {"diff": module.weight, "diff_b": module.bias} if module.name == "full" else {}
        for part, tensor in (whole or module.custom_state_dict()).items():
            if tensor is not None:
                tensors[f"{module.lora_name}.{part}"] = tensor.detach().clone().contiguous()
    save_file(tensors, path)


def written_again(file: StyleFile, folder: Path) -> dict[str, LayerWeights]:
    """The layers after the file went through kohya's layout; nothing where what they do depends on the base."""
    if any(method_of(layer).needs_base for layer in file.layers.values()):
        return {}
    write_style(folder / "again.safetensors", file.layers)
    return read_style(folder / "again.safetensors").layers


@pytest.mark.parametrize("form", list(LYCORIS))
def test_what_lycoris_writes_changes_each_layer_as_it_does_there(
    unet: nn.Module, inputs: dict[str, Tensor], run: Any, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "a.safetensors"
    network = lycoris_network(unet, LYCORIS[form])
    wanted = own_updates(network)
    saved(network, path)
    file = read_style(path, {"unet": [name for name, _ in unet.named_modules()]})
    assert file.layout == "LyCORIS wrapper"
    assert {f"lycoris_{flatten(where.removeprefix('unet.'))}" for where in file.layers} == wanted.keys()
    bank = Bank({"unet": unet})
    attach(bank, "a", file)
    written = written_again(file, tmp_path)
    norms = {facts.path: facts.norm for facts in inspect_file(path).layers}
    for where, layer in bank.layers.items():
        share = layer.shares[0]
        found = share.method.merged(share.values(), layer.base, share.rank, share.alpha)
        weight, bias = wanted[f"lycoris_{flatten(where.removeprefix('unet.'))}"]
        torch.testing.assert_close(found["weight"], weight.view(layer.weight.shape), rtol=0, atol=1e-5)
        if bias is not None:
            torch.testing.assert_close(found["bias"], bias, rtol=0, atol=1e-5)
        if form not in ("DoRA", "GLoRA"):
            pair = written[where]
            again = pair.scale * (pair.up.flatten(1) @ pair.down.flatten(1)).view(layer.weight.shape)
            torch.testing.assert_close(again, weight.view(layer.weight.shape), rtol=0, atol=1e-5)
            assert pair.rank <= min(layer.weight.shape[0], layer.weight[0].numel())
            assert norms[where] == pytest.approx(float(weight.norm()), rel=1e-4)
    bank.set_strengths({"a": 0.6})
    apart = run(unet, inputs)
    merge(bank)
    torch.testing.assert_close(apart, run(unet, inputs), rtol=1e-3, atol=1e-4)
    unmerge(bank)
    bank.detach()

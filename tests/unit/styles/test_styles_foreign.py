"""What LyCORIS and PEFT make of their own files, and what is made of them here, layer by layer."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
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
from trainer.errors import AdapterFileError, RunError
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
    "DoRA by inputs": {"algo": "locon", "dora_wd": True, "wd_on_output": False},
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


MADE_WITH = {
    "DoRA": {"dora"},
    "DoRA by inputs": {"dora by inputs"},
    "GLoRA": {"glora"},
    "whole differences": {"full", "lora with bias"},
    **{form: {form[:4].lower()} for form in LYCORIS if form.startswith(("LoHa", "LoKr"))},
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
    assert MADE_WITH.get(form, {"lora"}) == {layer.method for layer in file.layers.values()}
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
        if form.startswith("DoRA"):
            assert torch.equal(written[where].extra["magnitude"], file.layers[where].extra["magnitude"])
            assert written[where].method == file.layers[where].method
        elif form != "GLoRA":
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


PEFT = {
    "LoHa": ("LoHaConfig", {"r": 2, "alpha": 3}),
    "LoHa with cores": ("LoHaConfig", {"r": 2, "alpha": 3, "use_effective_conv2d": True}),
    "LoKr": ("LoKrConfig", {"r": 2, "alpha": 3}),
    "LoKr of two factors": ("LoKrConfig", {"r": 1, "alpha": 3, "decompose_both": True, "use_effective_conv2d": True}),
    "LoRA by pattern": (
        "LoraConfig",
        {
            "r": 2,
            "lora_alpha": 3,
            "rank_pattern": {r"down_blocks.*\.conv1": 4},
            "alpha_pattern": {r".*\.conv[12]": 5, "to_k|proj_in": 7, r"up_blocks\.\d+.*\.attn2\.to_q": 9},
        },
    ),
    "rsLoRA by pattern": (
        "LoraConfig",
        {
            "r": 2,
            "lora_alpha": 3,
            "use_rslora": True,
            "rank_pattern": {"to_q": 4},
            "alpha_pattern": {"^mid_block.*": 1},
        },
    ),
    "LoRA with biases": (
        "LoraConfig",
        {"r": 2, "lora_alpha": 3, "lora_bias": True, "target_modules": ["conv1", "conv2"]},
    ),
}


@pytest.mark.parametrize("form", list(PEFT))
def test_what_peft_writes_changes_each_layer_as_it_does_there(
    unet: nn.Module, tmp_path: Path, make_unet: Any, form: str
) -> None:
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer

    kind, settings = PEFT[form]
    model = peft.get_peft_model(
        make_unet(), getattr(peft, kind)(**{"target_modules": ["to_q", "to_k", "conv1", "conv2", "proj_in"]} | settings)
    )
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "hada_" in name or "lokr_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.2)
    with warnings.catch_warnings():
        # That biases have one dimension surprises PEFT's own check of what it saves.
        warnings.filterwarnings("ignore", message=".*invalid shape")
        model.save_pretrained(tmp_path)
    theirs = {
        path.removeprefix("base_model.model."): module
        for path, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    bank = Bank({"unet": unet})
    attach(bank, "a", read_style(tmp_path / "adapter_model.safetensors"))
    assert {path.removeprefix("unet.") for path in bank.layers} == theirs.keys()
    for path, layer in bank.layers.items():
        share, module = layer.shares[0], theirs[path.removeprefix("unet.")]
        found = share.method.merged(share.values(), layer.base, share.rank, share.alpha)
        wanted = module.get_delta_weight("default").view(layer.weight.shape)
        torch.testing.assert_close(found["weight"], wanted, rtol=0, atol=1e-5)
        if "bias" in found:
            bias = module.lora_B["default"].bias * module.scaling["default"]
            torch.testing.assert_close(found["bias"], bias, rtol=0, atol=1e-5)
        assert ("bias" in found) == (form == "LoRA with biases")


PLACE = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"


def test_glora_of_its_first_versions_is_told_by_its_shapes(unet: nn.Module, tmp_path: Path) -> None:
    stem, rng = f"lora_unet_{PLACE}", torch.Generator().manual_seed(1)
    factors = {name: torch.randn(2, 16, generator=rng) for name in ("a1", "b1")}
    factors |= {name: torch.randn(16, 2, generator=rng) for name in ("a2", "b2")}
    tensors = {f"{stem}.{name}.weight": tensor for name, tensor in factors.items()}
    save_file(tensors | {f"{stem}.alpha": torch.tensor(1.0)}, tmp_path / "a.safetensors")
    bank = Bank({"unet": unet})
    attach(bank, "a", read_style(tmp_path / "a.safetensors"))
    (layer,) = bank.layers.values()
    share = layer.shares[0]
    found = share.method.merged(share.values(), layer.base, share.rank, share.alpha)["weight"]
    wanted = 0.5 * (layer.weight @ factors["a2"] @ factors["a1"] + factors["b2"] @ factors["b1"])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_a_glora_is_not_written_without_the_base_that_it_depends_on(tmp_path: Path) -> None:
    ones = {"a1": (16, 2), "a2": (2, 16), "b1": (16, 2), "b2": (2, 16)}
    save_file(
        {f"lora_unet_{PLACE}.{name}.weight": torch.ones(size) for name, size in ones.items()},
        tmp_path / "a.safetensors",
    )
    with pytest.raises(RunError, match=r"glora does to .* depends on the base"):
        write_style(tmp_path / "b.safetensors", read_style(tmp_path / "a.safetensors").layers)


def test_normalisation_layers_are_left_out_and_the_file_says_how_many(unet: nn.Module, tmp_path: Path) -> None:
    tensors = {
        f"diffusion_model.input_blocks.1.1.transformer_blocks.0.{name}": torch.full(size, 0.25)
        for name, size in {
            "attn2.to_q.diff": (16, 16),
            "norm1.diff": (16,),
            "norm1.diff_b": (16,),
            "norm2.diff_b": (16,),
        }.items()
    }
    save_file(
        tensors | {"diffusion_model.input_blocks.1.0.in_layers.0.w_norm": torch.ones(16)}, tmp_path / "a.safetensors"
    )
    file = read_style(tmp_path / "a.safetensors", {"unet": [name for name, _ in unet.named_modules()]})
    assert len(file.layers) == 1
    assert "changes 3 normalisation layers or lone biases, by at most 1;" in file.notes[0]


def test_a_difference_in_eight_bits_is_read(unet: nn.Module, tmp_path: Path) -> None:
    half = torch.full((16, 16), 0.5)
    save_file({f"lora_unet_{PLACE}.diff": half.to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    bank = Bank({"unet": unet})
    attach(bank, "a", read_style(tmp_path / "a.safetensors"))
    (layer,) = bank.layers.values()
    share = layer.shares[0]
    assert torch.equal(share.method.merged(share.values(), layer.base, share.rank, share.alpha)["weight"], half)
    assert inspect_file(tmp_path / "a.safetensors").layers[0].norm == 8


def test_a_bias_that_the_base_does_not_have_is_refused(unet: nn.Module, tmp_path: Path) -> None:
    stem = f"lora_unet_{PLACE}"
    save_file({f"{stem}.diff": torch.ones(16, 16), f"{stem}.diff_b": torch.ones(16)}, tmp_path / "a.safetensors")
    file = read_style(tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match=r"changes the bias of .*to_q, which has none"):
        attach(Bank({"unet": unet}), "a", file)
    with pytest.raises(RunError, match=r"change of its bias, .* choose kohya's"):
        write_style(tmp_path / "b.safetensors", file.layers, layout="diffusers")


def test_a_small_file_does_not_become_large_in_the_bank(unet: nn.Module, tmp_path: Path) -> None:
    stem = f"lora_unet_{PLACE}"
    tensors = {f"{stem}.lokr_w1": torch.ones(4, 4), f"{stem}.lokr_w2": torch.ones(4, 4)}
    save_file(tensors, tmp_path / "a.safetensors")
    bank = Bank({"unet": unet})
    attach(bank, "a", read_style(tmp_path / "a.safetensors"))
    assert sum(tensor.numel() for tensor in bank.state_dict_of("a").values()) == 4 * 4 * 3

"""VeRA in PEFT's own form: what PEFT makes of it, and what is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.adapters.bank import Bank
from trainer.errors import AdapterFileError
from trainer.styles import vera
from trainer.styles.fit import attach
from trainer.styles.read import read_style
from trainer.styles.write import write_style
from trainer.workbench.resize import resize

pytestmark = pytest.mark.model


def vera_in(unet: Any, targets: str = "attention") -> Bank:
    bank = Bank({"unet": unet})
    bank.add("it", targets, rank=4, alpha=6.0, method="vera", seed=5)
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, parameter in bank.parameters_of("it"):
            parameter.add_(torch.randn(parameter.shape, generator=rng))
    return bank


def written(bank: Bank, folder: Path) -> Path:
    assert vera.write(folder, bank.state_dict_of("it"), 4, 6.0)
    return folder / vera.TENSORS_FILE


def test_peft_opens_the_folder_and_draws_what_the_bank_does(
    make_unet: Any, make_inputs: Any, run: Any, tmp_path: Path
) -> None:
    from peft import PeftModel
    from peft.tuners.vera import VeraLayer

    bank, given = vera_in(make_unet()), make_inputs(2)
    shapes = {tuple(layer.weight.shape) for layer in bank.layers.values()}
    assert len(shapes) > 1, "of one shape nothing would be cut out"
    file, wanted = written(bank, tmp_path / "peft"), run(bank.roots["unet"], given)
    base = run(make_unet(), given)
    unet = make_unet()
    theirs = PeftModel.from_pretrained(unet, str(file.parent))
    layers = [module for module in theirs.modules() if isinstance(module, VeraLayer)]
    assert len(layers) == len(bank.layers)
    found = run(unet, given)
    assert not torch.allclose(found, base, atol=1e-2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_read_back_it_is_the_same_update(make_unet: Any, make_inputs: Any, run: Any, tmp_path: Path) -> None:
    bank, given = vera_in(make_unet()), make_inputs(2)
    file = written(bank, tmp_path / "peft")
    other = Bank({"unet": make_unet()})
    attach(other, "read", read_style(file, {"unet": [name for name, _ in other.roots["unet"].named_modules()]}))
    assert {layer.rank for layer in other.weights_of("read").values()} == {4}
    for strength in (1.0, 0.4):
        bank.set_strengths({"it": strength})
        other.set_strengths({"read": strength})
        torch.testing.assert_close(
            run(other.roots["unet"], given), run(bank.roots["unet"], given), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(AdapterFileError, match="whose change depends on the base"):
        resize(read_style(file), rank=1)


def test_of_layers_of_one_shape_it_is_small(tmp_path: Path) -> None:
    from torch import nn

    bank = Bank({"unet": nn.ModuleDict({"mid_block": nn.Sequential(*(nn.Linear(64, 64) for _ in range(20)))})})
    bank.add("it", [f"unet.mid_block.{i}" for i in range(20)], rank=4, alpha=6.0, method="vera", seed=5)
    write_style(tmp_path / "lora.safetensors", bank.weights_of("it"))
    file = written(bank, tmp_path / "peft")
    values = sum(tensor.numel() for tensor in load_file(file).values())
    assert values == 20 * (4 + 64) + 2 * 4 * 64
    assert file.stat().st_size < (tmp_path / "lora.safetensors").stat().st_size / 3


def test_what_peft_itself_saved_is_read_with_its_slices(
    make_unet: Any, make_inputs: Any, run: Any, tmp_path: Path
) -> None:
    from peft import VeraConfig, get_peft_model

    unet, given = make_unet(), make_inputs(1)
    theirs = get_peft_model(unet, VeraConfig(r=6, target_modules=["attn2.to_q", "attn2.to_k"], init_weights=False))
    theirs.save_pretrained(str(tmp_path))
    bank = Bank({"unet": make_unet()})
    attach(bank, "read", read_style(tmp_path / vera.TENSORS_FILE))
    wanted = run(unet, given)
    assert not torch.allclose(run(make_unet(), given), wanted, atol=1e-2)
    torch.testing.assert_close(run(bank.roots["unet"], given), wanted, rtol=1e-4, atol=1e-4)


def test_peft_has_no_form_for_convolutions_and_a_damaged_one_is_refused(make_unet: Any, tmp_path: Path) -> None:
    bank = vera_in(make_unet(), r".*\.attn2\.to_q|down_blocks\.0\.resnets\.0\.conv1")
    assert not vera.write(tmp_path / "no", bank.state_dict_of("it"), 4, 6.0)
    assert not (tmp_path / "no").exists()
    file = written(vera_in(make_unet()), tmp_path / "peft")
    assert json.loads((file.parent / vera.CONFIG_FILE).read_text())["peft_type"] == "VERA"
    whole = load_file(file)
    first = min(key for key in whole if key.endswith("vera_lambda_d"))
    for key, tensor, message in [
        (first, torch.ones(3), "which do not fit vera_A and vera_B"),
        ("base_model.vera_B", torch.ones(8, 3), "which do not go together"),
        (first.replace("_d", "_e"), torch.ones(3), "has no counterpart, or is no part of VeRA"),
        (first, torch.full_like(whole[first], float("nan")), "not numbers or infinite"),
    ]:
        save_file({**whole, key: tensor}, tmp_path / "torn.safetensors")
        with pytest.raises(AdapterFileError, match=message):
            read_style(tmp_path / "torn.safetensors")

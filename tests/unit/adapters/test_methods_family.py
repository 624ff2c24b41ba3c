"""What every method of the family promises, on a linear layer and a convolution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.adapters.bank import Bank
from trainer.adapters.merge import merge, unmerge
from trainer.adapters.methods import METHODS, method_named
from trainer.config import OptimConfig, parse
from trainer.errors import AdapterFileError, ConfigError, RunError
from trainer.styles.fit import attach
from trainer.styles.inspect import inspect_file
from trainer.styles.read import read_style
from trainer.styles.write import write_style
from trainer.training.optim import make_optimizer, restore_state, state_of
from trainer.workbench.resize import resize

MEMBERS: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name, method in METHODS.items() if method.site == "layer"},
    **{f"{name}, {init}": {"method": name, "settings": {"init": init}} for name, init in [
        ("lora", "gaussian"), ("lora", "pissa"), ("rslora", "pissa"), ("lora-fa", "pissa"), ("lora+", "gaussian"),
    ]},
}  # fmt: skip
PATHS = ["unet.down_blocks.0.fc", "unet.down_blocks.0.conv"]
UNET = r".*\.attn2\.to_(q|v|out\.0)|.*\.down_blocks\.0\.resnets\.0\.conv1"

member = pytest.mark.parametrize("settings", MEMBERS.values(), ids=list(MEMBERS))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 10)
        self.conv = nn.Conv2d(4, 9, 3, stride=2, padding=1)


class Model(nn.Module):
    """Two layers, and what they answer side by side."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.down_blocks = nn.ModuleList([Block()])

    def forward(self, rows: Tensor, pictures: Tensor) -> Tensor:
        block = self.down_blocks[0]
        return torch.cat([block.fc(rows).flatten(1), block.conv(pictures).flatten(1)], dim=1)


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return torch.randn(batch, 5, 12, generator=rng), torch.randn(batch, 4, 6, 6, generator=rng)


def stir(bank: Bank, name: str, seed: int = 7, size: float = 0.2) -> None:
    """Move every trained value, as a training would."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in bank.parameters_of(name):
            parameter.add_(torch.randn(parameter.shape, generator=rng) * size)


def member_in_bank(settings: Mapping[str, Any], model: nn.Module | None = None, **more: Any) -> Bank:
    bank = Bank({"unet": model or Model()})
    bank.add("it", more.pop("targets", PATHS), rank=more.pop("rank", 2), alpha=3.0, seed=1, **settings, **more)
    return bank


@member
def test_at_step_0_and_at_strength_0_the_base_answers_bit_for_bit(settings: dict[str, Any]) -> None:
    bank = member_in_bank(settings)
    model, given = bank.roots["unet"], inputs(3)
    with bank.detached():
        base = model(*given)
    assert torch.equal(model(*given), base)
    stir(bank, "it")
    assert not torch.allclose(model(*given), base, atol=1e-2)
    bank.close()
    assert torch.equal(model(*given), base)


@member
def test_on_a_base_in_half_precision_only_the_base_is(settings: dict[str, Any]) -> None:
    model = Model().to(torch.bfloat16)
    rows, pictures = (each.to(torch.bfloat16) for each in inputs(2))
    bank = member_in_bank(settings, model)
    with bank.detached():
        base = model(rows, pictures)
    assert torch.equal(model(rows, pictures), base)
    assert {value.dtype for value in bank.state_dict_of("it").values()} == {torch.float32}
    stir(bank, "it")
    answer = model(rows, pictures)
    assert answer.dtype == torch.bfloat16
    answer.float().square().mean().backward()
    assert all(parameter.grad is not None for _, parameter in bank.parameters_of("it"))
    exact = Bank({"unet": Model().to(torch.bfloat16).float()})
    exact.load("it", bank.weights_of("it"))
    torch.testing.assert_close(
        answer.float(), exact.roots["unet"](rows.float(), pictures.float()), rtol=3e-2, atol=6e-2
    )


@member
def test_updates_add_up_each_with_its_own_strength_for_each_image(settings: dict[str, Any]) -> None:
    bank = member_in_bank(settings)
    bank.add("other", PATHS[::-1], rank=3, method="dora", seed=2)
    stir(bank, "it")
    stir(bank, "other", seed=8)
    model, given = bank.roots["unet"], inputs(4)
    strengths = torch.tensor([[1.0, 0.0], [0.0, 0.7], [0.3, -1.0], [0.0, 0.0]])

    def drawn(rows: Tensor) -> Tensor:
        bank.set_strengths(rows)
        answer: Tensor = model(*given).detach()
        return answer

    base = drawn(torch.zeros(1, 2))
    alone = [drawn(row) - base for row in torch.eye(2)[:, None]]
    expected = base + strengths[:, :1] * alone[0] + strengths[:, 1:] * alone[1]
    torch.testing.assert_close(drawn(strengths), expected, rtol=1e-5, atol=1e-5)


@member
def test_merged_weights_answer_as_the_adapter_does(settings: dict[str, Any]) -> None:
    bank = member_in_bank(settings)
    stir(bank, "it")
    if not METHODS[settings["method"]].changes_weights:
        with pytest.raises(RunError, match="cannot be merged"):
            merge(bank)
        return
    model, given = bank.roots["unet"], inputs(2)
    bank.set_strengths({"it": 0.6})
    wanted = model(*given)
    merge(bank)
    torch.testing.assert_close(model(*given), wanted, rtol=1e-5, atol=1e-5)
    unmerge(bank)
    assert torch.equal(model(*given), wanted)


class Run:
    """Some steps of training, with what a checkpoint keeps."""

    def __init__(self, settings: Mapping[str, Any], model: nn.Module) -> None:
        self.bank = member_in_bank(settings, model, targets=UNET)
        self.named = self.bank.parameters_of("it")
        self.learning = self.bank.learning_of("it")
        self.optimizer = make_optimizer(self.named, OptimConfig(learning_rate=1e-2), self.learning.rate_factor)

    def train(self, steps: range, given: Mapping[str, Tensor], total: int) -> None:
        for step in steps:
            loss = self.bank.roots["unet"](**given).sample.square().mean()
            extra = self.learning.extra_loss()
            (loss if extra is None else loss + extra).backward()
            self.optimizer.step()
            self.learning.after_step(step + 1, total)
            self.optimizer.zero_grad()

    def state(self) -> tuple[dict[str, Tensor], Any]:
        tensors, numbers = state_of(self.optimizer, self.named)
        copied = {key: value.clone() for key, value in self.bank.state_dict_of("it").items()}
        return copied, ({key: value.clone() for key, value in tensors.items()}, numbers)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.site != "words"])
def test_a_run_that_was_killed_goes_on_to_the_same_tensors(make_unet: Any, make_inputs: Any, name: str) -> None:
    given, settings = make_inputs(1), {"method": name, "settings": {"init": "pissa"} if name == "lora" else {}}
    whole = Run(settings, make_unet())
    whole.train(range(2), given, 4)
    adapter, optimizer = whole.state()
    whole.train(range(2, 4), given, 4)
    second = Run(settings, make_unet())
    stir(second.bank, "it")
    second.bank.load_state_of("it", adapter)
    restore_state(second.optimizer, second.named, *optimizer)
    second.train(range(2, 4), given, 4)
    wanted, found = whole.state()[0], second.state()[0]
    assert wanted.keys() == found.keys()
    assert any(not torch.equal(wanted[key], adapter[key]) for key in wanted)
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


@member
@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_file_read_back_is_the_same_update(settings: dict[str, Any], layout: Any, tmp_path: Path) -> None:
    bank = member_in_bank(settings)
    stir(bank, "it")
    path = tmp_path / "it.safetensors"
    if layout not in METHODS[settings["method"]].layouts:
        with pytest.raises(RunError, match="for which the diffusers layout has no place"):
            write_style(path, bank.weights_of("it"), layout=layout)
        with pytest.raises(ConfigError, match=r"export\.format is 'diffusers', which has no place for what"):
            parse({"adapter": {"method": settings["method"]}, "export": {"format": layout}})
        return
    write_style(path, bank.weights_of("it"), layout=layout)
    other = Bank({"unet": Model()})
    names = {"unet": [name for name, _ in other.roots["unet"].named_modules()]}
    attach(other, "read", read_style(path, names))
    given = inputs(2)
    for strength in (1.0, -0.4):
        bank.set_strengths({"it": strength})
        other.set_strengths({"read": strength})
        torch.testing.assert_close(other.roots["unet"](*given), bank.roots["unet"](*given), rtol=1e-4, atol=1e-5)


@member
def test_diffusers_draws_the_file_as_the_bank_does(
    settings: dict[str, Any], make_unet: Any, make_inputs: Any, run: Any, tmp_path: Path
) -> None:
    from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin as Loader

    if "diffusers" not in METHODS[settings["method"]].layouts:
        return
    bank = member_in_bank(settings, make_unet(), targets=UNET)
    stir(bank, "it")
    write_style(tmp_path / "it.safetensors", bank.weights_of("it"), layout="diffusers")
    state, alphas, metadata = Loader.lora_state_dict(
        str(tmp_path), weight_name="it.safetensors", local_files_only=True, return_lora_metadata=True
    )
    theirs, given = make_unet(), make_inputs(2)
    Loader.load_lora_into_unet(state, alphas, theirs, adapter_name="it", metadata=metadata)
    theirs.eval()
    torch.testing.assert_close(run(theirs, given), run(bank.roots["unet"], given), rtol=1e-4, atol=1e-4)


def test_settings_belong_to_the_methods_that_have_them() -> None:
    assert parse({"adapter": {"method": "lora+", "rate_ratio": 4}}).adapter.rate_ratio == 4
    with pytest.raises(ConfigError, match=r"^adapter\.rate_ratio is 4\.0, but .* 'lora' has no such setting"):
        parse({"adapter": {"rate_ratio": 4}})
    with pytest.raises(ConfigError, match=r"^adapter\.init is 'pissa', but .* 'dora' has no such setting"):
        parse({"adapter": {"method": "dora", "init": "pissa"}})
    with pytest.raises(ConfigError, match=r"rank is 6, but takes 12 with these settings, and .* has room for 10"):
        member_in_bank(MEMBERS["lora, pissa"], rank=6)


def test_lora_plus_trains_b_faster_and_lora_fa_leaves_a_as_it_was_drawn() -> None:
    plus = member_in_bank({"method": "lora+", "settings": {"rate_ratio": 5.0}}).learning_of("it")
    assert {key.rpartition(".")[2]: plus.rate_factor(key) for key in (f"{PATHS[0]}.down", f"{PATHS[0]}.up")} == {
        "down": 1.0,
        "up": 5.0,
    }
    frozen, whole = member_in_bank({"method": "lora-fa"}), member_in_bank({"method": "lora"})
    assert [key for key, _ in frozen.parameters_of("it")] == [f"{path}.up" for path in sorted(PATHS)]
    for key, value in whole.state_dict_of("it").items():
        assert torch.equal(frozen.state_dict_of("it")[key], value)


def test_pissa_starts_from_the_best_approximation_of_the_base() -> None:
    bank = member_in_bank(MEMBERS["lora, pissa"])
    state, weight = bank.state_dict_of("it"), bank.layers[PATHS[0]].weight
    approximation = 3.0 / 2 * state[f"{PATHS[0]}.up"] @ state[f"{PATHS[0]}.down"]
    left, sizes, right = torch.linalg.svd(weight)
    torch.testing.assert_close(approximation, left[:, :2] @ torch.diag(sizes[:2]) @ right[:2], rtol=1e-4, atol=1e-5)


def test_vera_shares_its_matrices_and_a_checkpoint_brings_them_back() -> None:
    bank = Bank({"unet": nn.Sequential(nn.Linear(12, 10), nn.Linear(12, 10), nn.Linear(10, 12))})
    bank.add("it", ["unet.0", "unet.1", "unet.2"], rank=3, method="vera", seed=5)
    stir(bank, "it")
    first, second, third = (bank.layers[f"unet.{i}"].shares[0].values()["shared_down"] for i in range(3))
    assert first.data_ptr() == second.data_ptr() != third.data_ptr()
    assert bank["it"].size == 3 * 3 + 10 + 10 + 12
    layers = method_named("vera").layers(bank.state_dict_of("it"), 3, 3.0)
    for path, layer in bank.weights_of("it").items():
        assert torch.equal(layers[path].down, layer.down)
        assert torch.equal(layers[path].up, layer.up)


def test_adalora_spends_its_budget_where_it_matters() -> None:
    """The linear layer has next to nothing to learn, so that the convolution ends with more than its share."""
    bank = member_in_bank({"method": "adalora"}, rank=4)
    learning, named, model = bank.learning_of("it"), bank.parameters_of("it"), bank.roots["unet"]
    optimizer = make_optimizer(named, OptimConfig(learning_rate=1e-2), learning.rate_factor)
    rows, pictures = inputs(4)
    with bank.detached():
        wanted = model(rows, pictures)
    change = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    change[:, :50] *= 0.01
    wanted += change
    steps, open_directions = 30, []
    for step in range(steps):
        (loss := (model(rows, pictures) - wanted).square().mean()).backward()
        optimizer.step()
        learning.after_step(step + 1, steps)
        optimizer.zero_grad()
        sizes = [value for key, value in bank.state_dict_of("it").items() if key.endswith(".sizes")]
        open_directions.append(sum(int(size.count_nonzero()) for size in sizes))
        if step == 0:
            first_loss = float(loss.detach())
    assert float(loss.detach()) < 0.9 * first_loss
    assert open_directions[0] == 12
    assert open_directions == sorted(open_directions, reverse=True)
    assert set(open_directions[18:]) == {8}
    ranks = {path: layer.rank for path, layer in bank.weights_of("it").items()}
    assert ranks[PATHS[1]] > ranks[PATHS[0]]
    assert ranks[PATHS[1]] == 6


def test_adalora_starts_orthonormal_and_is_held_there() -> None:
    bank = member_in_bank({"method": "adalora"})
    learning = bank.learning_of("it")
    penalty = learning.extra_loss()
    assert penalty is not None
    assert float(penalty.detach()) < 1e-10
    stir(bank, "it")
    expected = 0.0
    for values in (bank.layers[path].shares[0].values() for path in PATHS):
        for matrix in (values["left"].flatten(1).T, values["right"].flatten(1)):
            expected += float((matrix @ matrix.T - torch.eye(3)).detach().square().sum()) * 0.1 / 2
    penalty = learning.extra_loss()
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ending", ["", ".weight", ".default", ".default.weight"])
def test_dora_of_peft_opens_however_its_version_ends_the_name(ending: str, tmp_path: Path) -> None:
    bank = member_in_bank({"method": "dora"})
    stir(bank, "it")
    write_style(tmp_path / "ours.safetensors", bank.weights_of("it"), layout="diffusers")
    tensors = {
        f"base_model.model.{key}{ending if 'magnitude' in key else ''}": value
        for key, value in load_file(tmp_path / "ours.safetensors").items()
    }
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        save_file(tensors, tmp_path / "theirs.safetensors", file.metadata())
    for path, layer in read_style(tmp_path / "theirs.safetensors").layers.items():
        wanted = bank.weights_of("it")[path]
        torch.testing.assert_close(layer.up * layer.scale, wanted.up * wanted.scale)
        assert torch.equal(layer.extra["magnitude"], wanted.extra["magnitude"])


def test_a_file_of_dora_says_who_reads_it_and_one_of_lora_needs_not(tmp_path: Path) -> None:
    for method in ("dora", "lora"):
        bank = member_in_bank({"method": method})
        write_style(tmp_path / f"{method}.safetensors", bank.weights_of("it"))
    dora, lora = (inspect_file(tmp_path / f"{method}.safetensors") for method in ("dora", "lora"))
    assert [note for note in dora.notes if "A1111" in note and "diffusers leaves them out" in note]
    assert not lora.notes
    assert dora.parameters == lora.parameters + 10 + 9


def test_bitfit_trains_the_biases_there_are_and_says_when_there_are_none(make_unet: Any) -> None:
    bank = member_in_bank({"method": "bitfit"}, make_unet(), targets=r".*\.attn2\.to_(q|out\.0)")
    assert {key.rpartition(".attn2.")[2] for key, _ in bank.parameters_of("it")} == {"to_out.0.bias"}
    with pytest.raises(
        ConfigError, match=r"names no layer that adapter\.method 'bitfit' can adapt: choose more layers"
    ):
        member_in_bank({"method": "bitfit"}, make_unet(), targets="qv")


def test_full_learns_as_the_weight_itself_and_its_file_is_the_difference(tmp_path: Path) -> None:
    bank, plain = member_in_bank({"method": "full"}), Model()
    bank.roots["unet"](*inputs(2)).square().mean().backward()
    plain(*inputs(2)).square().mean().backward()
    for key, parameter in bank.parameters_of("it"):
        wanted = plain.get_submodule(key.removeprefix("unet.").removesuffix(".change")).weight.grad
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-5, atol=1e-6)
    stir(bank, "it")
    write_style(tmp_path / "full.safetensors", bank.weights_of("it"))
    stored = load_file(tmp_path / "full.safetensors")
    assert len(stored) == len(PATHS)
    state = bank.state_dict_of("it")
    assert torch.equal(stored["lora_unet_down_blocks_0_conv.diff"], state[f"{PATHS[1]}.change"])
    assert [note for note in inspect_file(tmp_path / "full.safetensors").notes if "diffusers does not" in note]
    smaller = resize(read_style(tmp_path / "full.safetensors"), rank=2)
    exact = state[f"{PATHS[0]}.change"]
    sizes = torch.linalg.svdvals(exact)
    layer = smaller.layers[PATHS[0]]
    lost = (exact - layer.scale * layer.up @ layer.down).square().sum()
    torch.testing.assert_close(lost, sizes[2:].square().sum(), rtol=1e-3, atol=1e-5)
    assert 0 < smaller.lost < 1
    assert "of the energy is left out" in smaller.notes[-1]


def test_a_bottleneck_is_houlsbys_and_no_lora_can_be_made_of_it(tmp_path: Path) -> None:
    bank = member_in_bank({"method": "bottleneck"})
    stir(bank, "it")
    rows, _ = inputs(2)
    with bank.detached():
        frozen = bank.roots["unet"].down_blocks[0].fc(rows)
    state = bank.state_dict_of("it")
    down, up = state[f"{PATHS[0]}.down"], state[f"{PATHS[0]}.up"]
    wanted = frozen + torch.nn.functional.gelu(frozen @ down.T) @ up.T
    torch.testing.assert_close(bank.roots["unet"].down_blocks[0].fc(rows), wanted, rtol=1e-5, atol=1e-6)
    write_style(tmp_path / "it.safetensors", bank.weights_of("it"))
    file = read_style(tmp_path / "it.safetensors")
    with pytest.raises(AdapterFileError, match="no change of the base's weights, so no LoRA can be made of it"):
        resize(file, rank=1)
    assert [note for note in inspect_file(file.path).notes if "only Patina reads them" in note]

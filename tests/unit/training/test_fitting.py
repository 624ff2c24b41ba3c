"""Which settings are tried on a small card, in which order, and what is said about them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from trainer.adapters.bank import Bank
from trainer.bases.base import Base
from trainer.bases.placement import is_out_of_memory
from trainer.config import RunConfig, parse
from trainer.errors import ConfigError, DoesNotFit
from trainer.presets import resolve
from trainer.training import fitting
from trainer.training.batches import Batches
from trainer.training.fitting import Measured, fit, slow_types
from trainer.training.ladder import Rung, explain, preview_ways, rungs, with_rung
from trainer.training.loop import Trainer
from trainer.training.prepare import Prepared, prepare, read_dataset
from trainer.training.room import GIB, settle
from trainer.training.run_folder import RunFolder


def config_with(batch_size: int = 4, **memory: Any) -> RunConfig:
    return parse({"optim": {"batch_size": batch_size}, "memory": memory})


def test_rungs_go_from_the_fastest_to_the_smallest() -> None:
    found = rungs(config_with(4), levels=3)
    assert found[0] == Rung(4, 0, park_encoders=False)
    assert [rung.micro_batch for rung in found] == [4, 4, 2, 1, 1, 1, 1]
    assert [rung.checkpoint_levels for rung in found] == [0, 0, 0, 0, 1, 2, 3]
    assert all(rung.park_encoders for rung in found[1:])


def test_a_forced_setting_is_the_same_on_every_rung() -> None:
    found = rungs(config_with(4, micro_batch=2, park_encoders=False), levels=3)
    assert {rung.micro_batch for rung in found} == {2}
    assert not any(rung.park_encoders for rung in found)
    assert len(found) == len(set(found)) == 4


def test_a_written_choice_leaves_nothing_to_choose_again() -> None:
    for rung in rungs(config_with(6), levels=4):
        chosen = with_rung(config_with(6), rung, "sliced")
        assert rungs(chosen, levels=4) == [rung]
        assert preview_ways(chosen) == ("sliced",)


def test_passes_make_up_the_batch() -> None:
    config = config_with(6, micro_batch=2)
    config.optim.gradient_accumulation = 2
    assert (config.images_per_pass, config.passes_per_step) == (2, 6)
    assert (config_with(6).images_per_pass, config_with(6).passes_per_step) == (6, 1)


def test_a_pass_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory\.micro_batch \(4\) must divide optim\.batch_size \(6\)"):
        config_with(6, micro_batch=4)


def test_what_is_given_up_is_said_in_words() -> None:
    assert explain(with_rung(config_with(4), Rung(4, 0, False), "whole"), levels=3) == []
    said = " ".join(explain(with_rung(config_with(4), Rung(1, 2, True), "parked"), levels=3))
    for words in (
        "wait in main memory",
        "batch of 4 goes through in 4 passes",
        "2 of the model's 3 levels",
        "one by one",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, base: Base) -> RunConfig:
    images = tmp_path_factory.mktemp("images")
    for index, shade in enumerate(("red", "green", "blue", "gray")):
        Image.new("RGB", (64, 64), shade).save(images / f"{index}.png")
        (images / f"{index}.txt").write_text(f"{shade} square", encoding="utf-8")
    given = {
        "data": {"images": str(images)},
        "adapter": {"rank": 2},
        "optim": {"batch_size": 4, "warmup_steps": 0},
        "train": {"steps": 4, "threads": 1},
    }
    return resolve(parse(given), base.family, resolution=base.resolution, images=4)


@pytest.fixture(scope="module")
def materials(config: RunConfig, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_config(config)
    return prepare(read_dataset(folder, config, base), config, base, folder.cache)


@pytest.fixture
def make_trainer(base: Base, materials: Prepared) -> Any:
    bank = Bank(base.roots)
    bank.add("style", "cross", rank=2, seed=1)

    def make(config: RunConfig) -> Trainer:
        batches = Batches(
            base,
            materials.training,
            materials.features,
            batch_size=config.optim.batch_size or 1,
            images_per_pass=config.images_per_pass,
        )
        return Trainer(base, bank, "style", batches, config)

    yield make
    bank.detach()
    settle(base, config_with().memory)


def test_with_room_enough_nothing_is_given_up(config: RunConfig, base: Base, make_trainer: Any) -> None:
    fitted = fit(config, base, make_trainer)
    assert fitted.notes == ()
    assert fitted.config.memory.micro_batch == 4
    assert fitted.trainer.batches.images_per_pass == 4
    assert fitted.measured.seconds_per_step > 0
    assert fitted.seconds_per_picture > 0


def test_the_first_rung_that_fits_is_taken_and_explained(
    config: RunConfig, base: Base, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory as a card would show it: weights, encoders, and what each pass keeps."""
    tried: list[Rung] = []

    def measured(trainer: Trainer) -> Measured:
        parked = "vae" in base.placement.parked
        levels = sum(
            any(getattr(m, "gradient_checkpointing", False) for m in b.modules()) for b in base.denoiser.down_blocks
        )
        tried.append(Rung(trainer.batches.images_per_pass, levels, parked))
        if trainer.batches.images_per_pass == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return Measured(0.1, int((3 - 0.5 * levels) * GIB))

    monkeypatch.setattr(fitting, "measure", measured)
    monkeypatch.setattr(fitting, "memory_in_use", lambda device: GIB)
    limited = config.model_copy(deep=True)
    limited.memory.limit_gib = 2.2
    fitted = fit(limited, base, make_trainer)
    assert tried == [
        Rung(4, 0, False),
        Rung(4, 0, True),
        Rung(2, 0, True),
        Rung(1, 0, True),
        Rung(1, 1, True),
        Rung(1, 2, True),
    ]
    memory = fitted.config.memory
    assert (memory.micro_batch, memory.checkpoint_levels, memory.park_encoders) == (1, 2, True)
    assert (memory.previews, memory.limit_gib) == ("whole", 2.2)
    assert len(fitted.trainer.passes) == 4
    assert fitted.notes[0] == "To stay within 2.2 GiB (measured: 2.0 GiB):"


def test_a_picture_that_does_not_fit_is_drawn_with_more_care(
    config: RunConfig, base: Base, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "measure", lambda trainer: Measured(0.1, GIB))
    monkeypatch.setattr(fitting, "memory_in_use", lambda device: GIB if base.previews == "parked" else 3 * GIB)
    limited = config.model_copy(deep=True)
    limited.memory.limit_gib = 2.0
    fitted = fit(limited, base, make_trainer)
    assert fitted.config.memory.previews == "parked"
    assert any("the model makes room" in note for note in fitted.notes)


def test_what_does_not_fit_is_said_before_anything_starts(config: RunConfig, base: Base, make_trainer: Any) -> None:
    limited = config.model_copy(deep=True)
    limited.memory.limit_gib = 0.05
    smaller = base.resolution * 3 // 4
    with pytest.raises(
        DoesNotFit, match=rf"does not fit into 0\.\d GiB even with every saving\. Try data\.resolution {smaller}"
    ):
        fit(limited, base, make_trainer)


def test_an_error_of_another_kind_is_not_taken_for_a_small_card(
    config: RunConfig, base: Base, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(trainer: Trainer) -> Measured:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(fitting, "measure", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        fit(config, base, make_trainer)


def gradients(trainer: Trainer) -> tuple[list[torch.Tensor], int]:
    """A pass's gradients, and the bytes that were kept for its backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.bank.set_strengths({"style": 1.0})
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.loss(trainer.batches.draw(0))
    loss.backward()
    found = [parameter.grad.clone() for parameter in trainer.parameters if parameter.grad is not None]
    trainer.optimizer.zero_grad(set_to_none=True)
    return found, sum(kept.values())


def test_each_checkpointed_level_keeps_less_and_changes_no_gradient(
    config: RunConfig, base: Base, make_trainer: Any
) -> None:
    trainer = make_trainer(config)
    plain, most = gradients(trainer)
    sizes = [most]
    for count in (1, 2, 3):
        base.checkpoint_levels(count)
        again, kept = gradients(trainer)
        assert all(torch.equal(a, b) for a, b in zip(again, plain, strict=True))
        sizes.append(kept)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4
    base.checkpoint_levels(0)
    assert gradients(trainer)[1] == most


def test_smaller_passes_add_up_to_the_batch(config: RunConfig, base: Base, make_trainer: Any) -> None:
    """Every step sees the same images with the same noise, in however many passes it is computed."""
    whole, split = make_trainer(config), make_trainer(with_rung(config, Rung(1, 0, False), "whole"))
    whole.bank.set_strengths({"style": 1.0})
    for step in range(3):
        expected = float(whole.loss(whole.batches.draw(step)).detach())
        parts = [float(split.loss(split.batches.draw(step, number)).detach()) for number in split.passes]
        assert len(parts) == 4
        assert sum(parts) / 4 == pytest.approx(expected, rel=1e-5)


def test_free_memory_never_exceeds_the_machines() -> None:
    from trainer.hardware import Machine

    has = Machine(torch.device("cpu"), "CPU", total=24_000, available=20_000)
    assert has.with_ours(3_000) == 23_000
    assert has.with_ours(5_000) == 24_000


def test_that_bf16_is_slow_on_a_processor_is_said_in_the_plan(base: Base) -> None:
    config = config_with()
    assert slow_types(config, base) == []
    config.train.precision = "bf16"
    assert "is often slower" in slow_types(config, base)[0]

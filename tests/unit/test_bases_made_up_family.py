"""What a family object answers, and that a family nobody has heard of trains and draws without a change elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from trainer.adapters.bank import Bank
from trainer.bases.base import Base, Conditioning, SizeFacts, TextFeatures
from trainer.bases.families import FAMILIES, SD1, SD2, SDXL, Family, Preset, key_of, of_text_width, title_of
from trainer.bases.families.family import Prediction
from trainer.bases.process import Process
from trainer.config import PresetName, RunConfig, parse
from trainer.config.schedulers import SCHEDULERS, Scheduler
from trainer.presets import resolve
from trainer.training.batches import Batches, TrainingImage
from trainer.training.loop import Trainer
from trainer.training.validation import Validation

CPU = torch.device("cpu")
SIDE, WORDS, WIDTH = 4, 3, 16


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_family_answers_whatever_is_asked_before_a_base_is_opened(family: Family) -> None:
    assert FAMILIES[family.key] is family
    assert issubclass(family.opened_class(), Base)
    assert set(family.presets) == set(get_args(PresetName))
    assert set(family.version_names) == set(family.architectures) == set(get_args(Prediction))
    assert len(family.prompts) >= 6
    assert family.default_side % family.side_multiple == 0
    assert family.guidance > 1
    assert family.title
    roots = [family.root, *(spec.root for spec in family.text_encoders)]
    assert len(set(roots)) == len(roots)


def test_a_family_is_found_by_every_name_that_it_writes_into_files() -> None:
    for family in FAMILIES.values():
        for name in (*family.version_names.values(), *family.architectures.values()):
            assert key_of(name) == family.key


def test_no_two_families_share_a_name_or_a_text_width() -> None:
    for one, other in combinations(FAMILIES.values(), 2):
        assert not set(one.name_prefixes) & set(other.name_prefixes)
        assert one.title != other.title
    assert [of_text_width(width) for width in (768, 1024, 2048)] == [SD1, SD2, SDXL]
    assert title_of("somebody's own") == "somebody's own"


def test_the_table_of_schedulers_has_every_choice_of_the_settings() -> None:
    assert tuple(SCHEDULERS) == get_args(Scheduler)


class Straight(Process):
    """Rectified flow: a straight line from picture to noise, whose direction is learned (Liu et al. 2022)."""

    @property
    def last(self) -> float:
        return 1.0

    def timestep(self, draw: int) -> float:
        return (draw + 0.5) / 2**32

    def levels(self, count: int) -> list[float]:
        return [(level + 0.5) / count for level in range(count)]

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        t = timesteps.view(-1, 1, 1, 1)
        return (1 - t) * latents + t * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - latents

    def weights(self, timesteps: Tensor, gamma: float) -> Tensor:
        return torch.ones_like(timesteps)

    def sampler(self, name: Scheduler, steps: int) -> Any:
        raise NotImplementedError


class Transformer(nn.Module):
    """Cells as tokens, words beside them: as much of a transformer as an adapter needs."""

    def __init__(self) -> None:
        super().__init__()
        self.inwards, self.outwards = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 4)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, WIDTH, dropout=0.0, batch_first=True)
        self.mixing = nn.Linear(WIDTH, WIDTH)

    def forward(self, cells: Tensor, time: Tensor, words: Tensor) -> Tensor:
        tokens = cells.flatten(2).transpose(1, 2)
        told = torch.cat([tokens, time.view(-1, 1, 1).expand(-1, tokens.shape[1], 1)], dim=-1)
        mixed = self.layer(torch.cat([self.mixing(self.inwards(told)), words], dim=1))[:, : tokens.shape[1]]
        return self.outwards(mixed).transpose(1, 2).reshape(cells.shape)


class FlowBase(Base):
    """An opened base of the made-up family."""

    @staticmethod
    def process_of(scheduler: Mapping[str, Any], prediction: Prediction, device: torch.device) -> Process:
        return Straight()

    @staticmethod
    def denoiser_class() -> Any:
        return Transformer

    @property
    def prediction(self) -> Prediction:
        return "v_prediction"

    @property
    def side_multiple(self) -> int:
        return 8

    @property
    def levels(self) -> int:
        return 1

    @property
    def style_layers(self) -> Sequence[nn.Module]:
        return (self.denoiser,)

    def checkpoint_levels(self, count: int) -> None:
        pass

    def encode_texts(self, texts: Sequence[str], *, windows: int | None = None) -> TextFeatures:
        return TextFeatures(torch.stack([torch.full((WORDS, WIDTH), float(len(text))) for text in texts]))

    def conditioning(self, features: TextFeatures, sizes: Sequence[SizeFacts]) -> Conditioning:
        return {"words": features.hidden}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        answer: Tensor = self.denoiser(noisy, timesteps, conditioning["words"])
        return answer

    def pipeline(self) -> Any:
        raise NotImplementedError

    def scale_latents(self, latents: Tensor) -> Tensor:
        return latents


@dataclass(frozen=True, kw_only=True)
class Flow(Family):
    def is_folder(self, model_index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        return False

    def is_file(self, has: Callable[[str], bool]) -> bool:
        return False

    def opened_class(self) -> Any:
        return FlowBase


FLOW = Flow(
    key="flow",
    title="Straight lines",
    root="transformer",
    text_encoders=(),
    text_width=WIDTH,
    guidance=4.0,
    default_side=32,
    side_multiple=8,
    name_prefixes=("straight",),
    version_names={"v_prediction": "straight"},
    architectures={"v_prediction": "straight-lines"},
    presets={name: Preset(1e-2, 2, 2, 1, 4, 4, "a family that a test made up") for name in get_args(PresetName)},
    prompts=("a line",),
)


@pytest.fixture
def base() -> Base:
    torch.manual_seed(0)
    return FlowBase(
        family=FLOW,
        source="made up",
        denoiser=Transformer().requires_grad_(False),
        vae=None,
        text_encoders={},
        tokenizers={},
        process=Straight(),
        resolution=32,
        identity="flow",
        vae_identity="none",
        text_identity="none",
        device=CPU,
        dtype=torch.float32,
    )


@pytest.fixture
def bank(base: Base) -> Iterator[Bank]:
    bank = Bank(base.roots)
    yield bank
    bank.detach()


def images(count: int) -> list[TrainingImage]:
    generator = torch.Generator().manual_seed(1)
    return [
        TrainingImage(
            torch.randn(1, 4, SIDE, SIDE, generator=generator),
            torch.zeros(1, 4, SIDE, SIDE),
            1,
            (SizeFacts.whole(32, 32),),
        )
        for _ in range(count)
    ]


def config() -> RunConfig:
    return resolve(parse({"optim": {"warmup_steps": 0}}), FLOW, resolution=32, images=4)


def test_a_made_up_transformer_family_trains_and_is_validated_without_a_change_elsewhere(
    base: Base, bank: Bank
) -> None:
    features = base.encode_texts(["", "a line"])
    bank.add("style", "mixing", rank=2, seed=0)
    trainer = Trainer(base, bank, "style", Batches(base, images(4), features, batch_size=2), config())
    validation = Validation(base, images(2), features, seed=0)
    before = validation.measure(trainer)
    bank.set_strengths({"style": 1.0})
    frozen = base.denoiser.outwards.weight.clone()
    for step in range(12):
        trainer.accumulate(trainer.batches.draw(step))
        trainer.update(1e-2)
    after = validation.measure(trainer)
    assert before.style == before.base == after.base
    assert after.style < before.style
    assert torch.equal(base.denoiser.outwards.weight, frozen)

"""Textual inversion: the trigger's words learn, in every text encoder of a base, and nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_families import build, save_folder
from torch import Tensor

from trainer.adapters.bank import Bank
from trainer.adapters.merge import merge
from trainer.bases.base import Base, SizeFacts
from trainer.bases.open import load_base
from trainer.config import BaseConfig, RunConfig, parse
from trainer.errors import AdapterFileError, ConfigError, RunError
from trainer.judging.eye import Eye
from trainer.presets import resolve
from trainer.styles.fit import attach
from trainer.styles.inspect import inspect_file
from trainer.styles.read import read_style
from trainer.styles.verify import verify_export
from trainer.styles.write import write_style
from trainer.training.run import add_style
from trainer.workbench.resize import resize

pytestmark = pytest.mark.model

TRIGGER = "ink style"
SETTINGS = {"trigger": TRIGGER, "adapter": {"method": "textual-inversion"}}


@pytest.fixture(scope="module", params=["bundled", "sd1", "sd2", "sdxl"])
def any_base(request: pytest.FixtureRequest, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Base:
    if request.param == "bundled":
        return base
    folder = save_folder(build(request.param), tmp_path_factory.mktemp(request.param))
    return load_base(BaseConfig(source=str(folder)), device=torch.device("cpu"), dtype=torch.float32, offline=True)


def asked(base: Base, **changes: Any) -> RunConfig:
    return resolve(parse({**SETTINGS, **changes}), base.family, resolution=base.resolution, images=4)


def words_in(base: Base, name: str = "ink", trigger: str = TRIGGER) -> Bank:
    bank = Bank(base.roots)
    add_style(bank, base, asked(base, trigger=trigger), name)
    return bank


def stir(bank: Bank, name: str, seed: int = 7) -> None:
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in bank.parameters_of(name):
            size = float(bank.state_dict_of(name)[key.replace(".change", ".first")].std())
            parameter.copy_(2 * size * torch.randn(parameter.shape, generator=rng))


@torch.no_grad()
def said(base: Base, *texts: str) -> Tensor:
    found = base.encode_texts(texts)
    return found.hidden if found.pooled is None else torch.cat([found.hidden.flatten(1), found.pooled], dim=1)


def test_only_texts_with_the_trigger_change_as_far_as_each_is_told(any_base: Base) -> None:
    texts = (f"a fox, {TRIGGER}", "a fox, ink and style")
    plain = said(any_base, *texts)
    bank = words_in(any_base)
    try:
        assert {path.split(".", 1)[0] for path in bank["ink"].spec.targets} == set(any_base.text_encoders)
        assert torch.equal(said(any_base, *texts), plain)
        stir(bank, "ink")
        whole = said(any_base, *texts)
        assert not torch.allclose(whole[0], plain[0], atol=1e-2)
        assert torch.equal(whole[1], plain[1])
        bank.close()
        assert torch.equal(said(any_base, *texts), plain)
        bank.set_strengths(torch.tensor([[1.0], [0.0]]))
        rows = said(any_base, texts[0], texts[0])
        torch.testing.assert_close(rows[0], whole[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rows[1], plain[0], rtol=1e-4, atol=1e-5)
    finally:
        bank.detach()
    assert torch.equal(said(any_base, *texts), plain)


def test_its_gradient_is_that_of_the_rows_of_the_embedding(any_base: Base) -> None:
    base = any_base
    side = 4 * base.side_multiple // base.vae_factor
    rng = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, base.latent_channels, side, side, generator=rng) for _ in range(2))
    texts = [f"a fox, {TRIGGER}", f"{TRIGGER}, snow"]

    def loss() -> Tensor:
        size = SizeFacts.whole(side * base.vae_factor, side * base.vae_factor)
        told = base.conditioning(base.encode_texts(texts), [size] * 2)
        return base.errors(latents, noise, torch.tensor([400, 700]), told).mean()

    rows = {}
    tables = {root: encoder.get_input_embeddings().weight for root, encoder in base.text_encoders.items()}
    for table in tables.values():
        table.requires_grad_(True)
    loss().backward()
    for root, table in tables.items():
        assert table.grad is not None
        rows[root] = table.grad[list(base.tokens_of(TRIGGER)[root])]
        table.grad = None
        table.requires_grad_(False)
    bank = words_in(base)
    try:
        loss().backward()
        for key, parameter in bank.parameters_of("ink"):
            expected = rows[key.split(".", 1)[0]]
            assert bool(expected.any())
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    finally:
        bank.detach()


def test_diffusers_draws_the_embedding_as_the_bank_does_the_words(any_base: Base, tmp_path: Path) -> None:
    base, path = any_base, tmp_path / "ink.safetensors"
    bank = words_in(base)
    try:
        stir(bank, "ink")
        wanted = said(base, f"a fox, {TRIGGER}")
        weights = bank.weights_of("ink")
        architecture = f"{base.family.architectures[base.prediction]}/lora"
        said_of_it = {"modelspec.trigger_phrase": TRIGGER, "modelspec.architecture": architecture}
        write_style(path, weights, metadata=said_of_it)
        two = len(base.text_encoders) == 2
        assert set(load_file(path)) == ({"clip_l", "clip_g"} if two else {"emb_params"})
        with pytest.raises(RunError, match="made with textual-inversion cannot be merged"):
            merge(bank)
        with bank.detached():
            parts = [*base.text_encoders.values(), *base.tokenizers.values()]
            parts += [encoder.get_input_embeddings().weight for encoder in base.text_encoders.values()]
            proof = verify_export(path, base.pipeline, weights, prompt=f"a fox, {TRIGGER}", family=base.family)
            after = [*base.text_encoders.values(), *base.tokenizers.values()]
            after += [encoder.get_input_embeddings().weight for encoder in base.text_encoders.values()]
            assert [id(part) for part in after] == [id(part) for part in parts]
        assert [tick.name for tick in proof.ticks][-2:] == ["loaded by diffusers", "same picture"]
        other = bank.weights_of("ink", {key: value * 3 for key, value in bank.parameters_of("ink")})
        with pytest.raises(RunError, match=r"read back: .* has other values"), bank.detached():
            verify_export(path, base.pipeline, other)
    finally:
        bank.detach()
    read = Bank(base.roots)
    try:
        attach(read, "read", read_style(path))
        torch.testing.assert_close(said(base, f"a fox, {TRIGGER}"), wanted, rtol=1e-4, atol=1e-5)
    finally:
        read.detach()


def test_words_mix_with_others_and_reach_every_window_of_a_long_text(base: Base) -> None:
    long = f"{TRIGGER}, " + ", ".join(["red fox"] * base.window_tokens) + f", {TRIGGER}"
    texts = (long, f"a hen, {TRIGGER}")
    bank = words_in(base)
    try:
        add_style(bank, base, asked(base, trigger="red"), "red")
        stir(bank, "ink")
        stir(bank, "red", seed=8)
        bank.set_strengths({"ink": 1.0, "red": 0.5})
        both = [base.encode_texts([text]).hidden[0].detach() for text in texts]
        bank.set_strengths(torch.tensor([[1.0, 0.5], [1.0, 0.5]]))
        found = base.encode_texts(texts)
        assert found.lengths is not None
        for row, (text, length) in enumerate(zip(both, found.lengths, strict=True)):
            torch.testing.assert_close(found.hidden[row, :length].detach(), text, rtol=1e-4, atol=1e-5)
        bank.set_strengths({"ink": 1.0})
        assert not torch.allclose(said(base, long)[0], both[0], atol=1e-2)
    finally:
        bank.detach()


def test_judging_asks_for_words_at_the_strength_that_it_looks_at(base: Base) -> None:
    bank = words_in(base)
    try:
        stir(bank, "ink")
        bank.set_strengths(torch.tensor([[1.0], [1.0]]))
        eye = Eye(base, bank)
        side = 4 * base.side_multiple // base.vae_factor
        latents = torch.randn(1, base.latent_channels, side, side, generator=torch.Generator().manual_seed(1))
        closed, opened = (eye.predictions(latents, [TRIGGER], torch.tensor([[strength]])) for strength in (0.0, 1.0))
        recalled = [eye.recalled([latents[0]], [TRIGGER], torch.tensor([[strength]])) for strength in (0.0, 1.0)]
        errors = eye.caption_errors(latents, [[TRIGGER, "a fox"]])
        with bank.detached():
            plain = eye.predictions(latents, [TRIGGER], torch.tensor([[1.0]]))
            assert torch.equal(eye.caption_errors(latents, [[TRIGGER, "a fox"]]), errors)
        assert torch.equal(closed, plain)
        assert not torch.allclose(opened, plain, atol=1e-2)
        assert not torch.allclose(*recalled, atol=1e-3)
    finally:
        bank.detach()


def test_words_that_could_overlap_themselves_are_found_from_the_left(base: Base) -> None:
    from trainer.adapters.methods.textual_inversion import _places

    ids = torch.tensor([[5, 5, 5, 5, 5, 1, 5, 5], [1, 5, 1, 5, 5, 5, 1, 5]])
    assert _places(ids, torch.tensor([5, 5])).tolist() == [[1, 2, 1, 2, 0, 0, 1, 2], [0, 0, 0, 1, 2, 0, 0, 0]]
    assert _places(ids, torch.tensor([5, 1, 5])).tolist()[1] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert not _places(ids, torch.arange(9)).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trigger": ""}, "trains the trigger's words, but there is no trigger"),
        ({"trigger": "red fox " * 20}, r"this trigger has 40 tokens, of which the base reads 14 at once"),
        ({"adapter": {"method": "textual-inversion", "dropout": 0.5}}, r"adapter\.dropout is 0\.5, but .* set it to 0"),
        ({"train": {"preserve": 0.5}}, r"train\.preserve is 0\.5, but .* set it to 0"),
    ],
)
def test_what_cannot_be_trained_is_said(base: Base, settings: dict[str, object], message: str) -> None:
    bank = Bank(base.roots)
    with pytest.raises(ConfigError, match=message):
        add_style(bank, base, asked(base, **settings))


def test_an_embedding_says_what_it_is_and_a_damaged_one_is_refused(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "ink.safetensors"
    bank = words_in(base)
    write_style(path, bank.weights_of("ink"), metadata={"modelspec.architecture": "stable-diffusion-v1/lora"})
    bank.detach()
    found = inspect_file(path)
    assert found.layout == "embedding"
    assert [note for note in found.notes if "load_textual_inversion" in note]
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert header["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    with pytest.raises(AdapterFileError, match="so no LoRA can be made of it"):
        resize(read_style(path), rank=1)
    tensors = load_file(path)
    for words in ("[", '{"te": [1, 2, 3, 4]}', '{"te": "many"}', '{"te": [-1, 2, 3]}'):
        save_file(tensors, tmp_path / "torn.safetensors", {**header, "patina.words": words})
        with pytest.raises(AdapterFileError, match=r"is broken: its emb_params is .* not the vectors of"):
            read_style(tmp_path / "torn.safetensors")
    save_file({"emb_params": tensors["emb_params"] / 0}, tmp_path / "torn.safetensors", header)
    with pytest.raises(AdapterFileError, match="not numbers or infinite"):
        read_style(tmp_path / "torn.safetensors")

"""Proof that an exported file is what was trained: loaded by diffusers, compared value by value and as a picture.

The picture is a small one, without guidance and compared before it is decoded: a style changes no decoder, guidance
only mixes what the same layers answer, and a full-size base spends most of its time on just these. It is drawn with the
modules that are loaded already, by diffusers with the file's layers and by our bank.

diffusers only warns when a file names a layer that a model does not have, and drops one of two kinds of names when a
file mixes them, so *no error* is no proof.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.adapters.bank import Bank
from trainer.adapters.layers import GatedLayer
from trainer.adapters.weights import LayerWeights
from trainer.bases.families import Family
from trainer.bases.quiet import quiet_libraries
from trainer.errors import AdapterFileError, RunError
from trainer.safetensors_file import read_header, read_tensors
from trainer.styles import words
from trainer.styles.consumers import told
from trainer.styles.consumers.proof import prove
from trainer.styles.file import StyleFile, readers_of
from trainer.styles.fit import attach
from trainer.styles.names import NATIVE_TENSORS, as_in_files, installed_path, root_at_hand
from trainer.styles.read import read_style
from trainer.styles.write import Layout, laid_out

MAX_DIFFERENCE_FP32 = 2e-3
"""Largest difference allowed in any latent, which spread about 1: diffusers adds in another order than the bank."""
MEAN_DIFFERENCE_HALF = 2e-2
"""Mean difference allowed when the base is in half precision: every layer rounds, and steps add up."""
MOST_CELLS = 32
"""Latent cells along a side of the compared picture, at most."""

_NAME = "patina_verification"
_WORD = "<patina-verification>"
_SECOND = {"clip_g": "_2"}
"""Tensors of an embedding file that are not the first text encoder's, and how the pipeline's parts for them end."""


@dataclass(frozen=True)
class Tick:
    """One check, for people."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """All checks of a file; ``difference`` is the largest one between the two pictures' latents.

    It is None where diffusers leaves a part of the file out, so that there is nothing to compare. ``opens`` says what
    the programs that people open styles in do with the file: those that take it whole, then who loses what.
    """

    path: Path
    ticks: tuple[Tick, ...]
    difference: float | None
    opens: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The checks for people."""
        return "; ".join(f"{tick.name}: {tick.detail}" for tick in self.ticks) + "."


def verify_export(
    path: Path | str,
    pipeline_factory: Callable[[], Any],
    expected: Mapping[str, LayerWeights],
    *,
    prompt: str = "a picture",
    seed: int = 0,
    steps: int = 2,
    side: int | None = None,
    family: Family | None = None,
) -> Verification:
    """Load a file through diffusers and compare it with what was trained.

    A style goes through its ``load_lora_weights``, an embedding through ``load_textual_inversion``.

    The pipeline, the global random state and the models' modules are left as they were.

    Args:
        pipeline_factory: gives a StableDiffusionPipeline or StableDiffusionXLPipeline on the base, without a bank
            on its models (see `Bank.detached`).
        expected: what was trained, as `Bank.weights_of` gives it.
        steps: denoising steps of the compared pictures.
        side: their width and height in pixels; None is the base's own, at most `MOST_CELLS`.
        family: of the base; None is what the file says of it.

    Raises:
        RunError: a check failed; the message says which.
    """
    path = Path(path)
    pipeline = pipeline_factory()
    roots = _roots(pipeline)
    if any(isinstance(module, GatedLayer) for model in roots.values() for module in model.modules()):
        raise ValueError("the pipeline's models carry a bank; detach it first")
    side = side or min(int(pipeline.unet.config.sample_size), MOST_CELLS) * int(pipeline.vae_scale_factor)
    ticks: list[Tick] = []

    def check(name: str, ok: bool, detail: str) -> None:
        ticks.append(Tick(name, ok, detail))
        if not ok:
            raise RunError(f"The style was written to {path}, but it did not pass a check. {name}: {detail}.")

    def draw(text: str) -> Tensor:
        latents: Tensor = pipeline(
            prompt=text,
            width=side,
            height=side,
            num_inference_steps=steps,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        ).images[0]
        return latents.float().cpu()

    file = read_style(path)
    check("read back", *_same_layers(file.layers, laid_out(expected, _layout(file))))
    programs = prove(file, family)
    if programs:
        wrong = [f"{each.program}: {each.why}" for each in programs if each.state == "wrong"]
        check("other programs", not wrong, "; ".join(wrong) or "the update of every layer that they take is ours")
    opens = told(programs)
    native = readers_of(file.layers)
    for sentence in native:
        check("read by", True, sentence.removesuffix("."))
    if native and _layout(file) == "kohya":
        return Verification(path, tuple(ticks), None, opens)
    with _undisturbed(pipeline), torch.no_grad():
        if words.holds_words(file.layers):
            trigger = file.metadata.get("modelspec.trigger_phrase", "") or prompt
            with _with_word(pipeline, path) as problem:
                check("loaded by diffusers", not problem, problem or "without complaint")
                theirs = draw(prompt.replace(trigger, _WORD))
        else:
            try:
                problem = _load(pipeline, path)
                check("loaded by diffusers", not problem, problem or "without complaint")
                found = {root: _peft_layers(model) for root, model in roots.items()}
                check("all there", *_all_found(found, file))
                check("scaling", *_same_scaling(found, file))
                check("A and B", *_same_matrices(found, file))
                theirs = draw(prompt)
            finally:
                pipeline.unload_lora_weights()
        bank = Bank(roots)
        try:
            attach(bank, _NAME, file)
            bank.set_strengths({_NAME: 1.0})
            ours = draw(prompt)
        finally:
            bank.detach()
    difference = float((ours - theirs).abs().max())
    check("same picture", *_same_picture(ours, theirs, pipeline.unet.dtype))
    return Verification(path, tuple(ticks), difference, opens)


def _layout(file: StyleFile) -> Layout:
    return "kohya" if file.layout.startswith("kohya") else "diffusers"


def _roots(pipeline: Any) -> dict[str, nn.Module]:
    second = getattr(pipeline, "text_encoder_2", None)
    encoders = {"te": pipeline.text_encoder} if second is None else {"te1": pipeline.text_encoder, "te2": second}
    return {"unet": pipeline.unet} | {root: model for root, model in encoders.items() if model is not None}


@contextlib.contextmanager
def _undisturbed(pipeline: Any) -> Iterator[None]:
    """No chatter, no safety checker (it blackens pictures, and two black ones are equal), no random numbers used."""
    from diffusers.utils import logging

    device = pipeline.unet.device
    bar = getattr(pipeline, "_progress_bar_config", {})
    checker = getattr(pipeline, "safety_checker", None)
    verbosity = logging.get_verbosity()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            # That a file has no layers for the text encoder would be worth a warning there; here it is usual.
            logging.set_verbosity_error()
            pipeline.set_progress_bar_config(disable=True)
            if checker is not None:
                pipeline.safety_checker = None
            yield
        finally:
            logging.set_verbosity(verbosity)
            pipeline.set_progress_bar_config(**bar)
            if checker is not None:
                pipeline.safety_checker = checker


def _load(pipeline: Any, path: Path) -> str:
    """What diffusers objects to, in its own words; empty when the file loads."""
    try:
        with warnings.catch_warnings():
            # PEFT's hints at layers that do not match are left to the checks, which find them all.
            warnings.simplefilter("ignore")
            pipeline.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=_NAME, local_files_only=True
            )
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        return str(error).strip().splitlines()[0]
    return ""


@contextlib.contextmanager
def _with_word(pipeline: Any, path: Path) -> Iterator[str]:
    """An embedding file is loaded as `_WORD` while this lasts; gives what diffusers objects to, in its own words.

    The tokenizers that learn the word are copies, and the text encoders get their embeddings back.
    """
    tensors = read_tensors(read_header(path, AdapterFileError), raises=AdapterFileError)
    parts = [(name, f"tokenizer{_SECOND.get(name, '')}", f"text_encoder{_SECOND.get(name, '')}") for name in tensors]
    tokenizers = {part: getattr(pipeline, part) for _, part, _ in parts}
    encoders = [getattr(pipeline, part) for _, _, part in parts]
    embeddings = [encoder.get_input_embeddings() for encoder in encoders]
    weights = [embedding.weight for embedding in embeddings]
    problem = ""
    try:
        for (name, part, _), encoder in zip(parts, encoders, strict=True):
            learning = copy.deepcopy(tokenizers[part])
            setattr(pipeline, part, learning)
            with quiet_libraries():
                pipeline.load_textual_inversion(
                    {name: tensors[name]}, token=_WORD, tokenizer=learning, text_encoder=encoder
                )
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        problem = str(error).strip().splitlines()[0]
    try:
        yield problem
    finally:
        for part, tokenizer in tokenizers.items():
            setattr(pipeline, part, tokenizer)
        # transformers makes room for a word by giving the same module another weight.
        for encoder, embedding, weight in zip(encoders, embeddings, weights, strict=True):
            embedding.weight, embedding.num_embeddings = weight, len(weight)
            encoder.set_input_embeddings(embedding)
            encoder.config.vocab_size = len(weight)


def _peft_layers(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, LoraLayer) and _NAME in module.scaling
    }


def _pairs(found: Mapping[str, dict[str, Any]], file: StyleFile) -> Iterator[tuple[str, Any, LayerWeights]]:
    """Each layer of the file with the PEFT layer that diffusers made of it, or None."""
    for where, layer in file.layers.items():
        root, inner = where.split(".", 1)
        layers = found.get(root_at_hand(root, found), {})
        name = installed_path(inner, layers)
        yield where, layers[name] if name else None, layer


def _same_layers(read: Mapping[str, LayerWeights], expected: Mapping[str, LayerWeights]) -> tuple[bool, str]:
    expected = {as_in_files(where): layer for where, layer in expected.items()}
    if read.keys() != expected.keys():
        return False, f"{min(read.keys() ^ expected.keys())} is on one side only"
    for where, layer in read.items():
        wanted = expected[where]
        dtype = layer.down.dtype
        if layer.extra.keys() != wanted.extra.keys():
            return False, f"{where} belongs to {layer.method} instead of {wanted.method}"
        extra = ((layer.extra[part], wanted.extra[part]) for part in layer.extra)
        for ours, theirs in ((layer.down, wanted.down), (layer.up, wanted.up), *extra):
            if not torch.equal(ours, theirs.detach().to("cpu", dtype)):
                return False, f"{where} has other values"
        if abs(layer.scale - wanted.scale) > 1e-6 * abs(wanted.scale):
            return False, f"{where} has the scale {layer.scale:g} instead of {wanted.scale:g}"
    return True, f"{len(read)} layers, every value as trained"


def _all_found(found: Mapping[str, dict[str, Any]], file: StyleFile) -> tuple[bool, str]:
    missing = [where for where, module, _ in _pairs(found, file) if module is None]
    total = sum(len(layers) for layers in found.values())
    if missing or total != len(file.layers):
        return False, f"{total} of {len(file.layers)} layers" + (f", without {missing[0]}" if missing else "")
    return True, f"{total} of {len(file.layers)} layers"


def _same_scaling(found: Mapping[str, dict[str, Any]], file: StyleFile) -> tuple[bool, str]:
    for where, module, layer in _pairs(found, file):
        if abs(module.scaling[_NAME] - layer.scale) > 1e-6 * abs(layer.scale):
            return False, f"{where} is scaled by {module.scaling[_NAME]:g} instead of {layer.scale:g}"
    return True, "equal in every layer"


def _same_matrices(found: Mapping[str, dict[str, Any]], file: StyleFile) -> tuple[bool, str]:
    for where, module, layer in _pairs(found, file):
        native = (
            (each.part, getattr(module, each.diffusers), layer.extra[each.part])
            for each in NATIVE_TENSORS
            if each.part in layer.extra
        )
        for name, stack, wanted in (("A", module.lora_A, layer.down), ("B", module.lora_B, layer.up), *native):
            loaded = stack[_NAME].weight.detach().cpu()
            if not torch.equal(loaded, wanted.to(loaded.dtype).reshape(loaded.shape)):
                return False, f"{name} differs in {where}"
    return True, "equal in every layer"


def _same_picture(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> tuple[bool, str]:
    distance = (ours - theirs).abs()
    if dtype == torch.float32:
        size, limit, kind = float(distance.max()), MAX_DIFFERENCE_FP32, "largest"
    else:
        size, limit, kind = float(distance.mean()), MEAN_DIFFERENCE_HALF, "mean"
    return size <= limit, f"{kind} difference {size:.1e} of at most {limit:.0e}"

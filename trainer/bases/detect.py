"""What a base is, told from configuration files and tensor names alone: family, prediction type, what is refused.

A single file's family is told by which text encoders lie in it under which names, because widths vary between
models of one family (distilled ones, tiny ones in tests) while the names do not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.bases.families import FAMILIES, Family
from trainer.bases.families.family import Prediction, names_a_class
from trainer.bases.weight_files import denoiser_of
from trainer.errors import BaseError
from trainer.safetensors_file import Header

DENOISER_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
_PIPELINES = {name for family in FAMILIES.values() for name in family.pipelines}
_TRAINABLE = "Patina trains on the text-to-image models of Stable Diffusion 1, 2 and XL"
_OTHER_MODELS = {
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux",
    "double_layers.": "AuraFlow",
}


@dataclass(frozen=True)
class Detected:
    """What the files say.

    Attributes:
        prediction: None when the files do not say it (SD2 as a single file).
        zero_snr: whether the noise schedule was rescaled so that its last step is pure noise.
    """

    family: Family
    prediction: Prediction | None
    zero_snr: bool = False


def detect_file(header: Header, path: Path) -> Detected:
    """Tell a single-file checkpoint.

    Raises:
        BaseError: it is no checkpoint of a family that can be trained on, or lacks a part; the message says what it is.
    """
    _refuse_parts(header, path)
    family = _family_of_names(header, path)
    missing = [
        title
        for prefix, title in (
            (VAE_PREFIX, "VAE"),
            *((spec.original_prefix, "text encoder") for spec in family.text_encoders),
        )
        if not header.has(prefix)
    ]
    if missing:
        raise BaseError(f"{path} has no {missing[0]} inside; choose the full checkpoint, not one with parts left out.")
    entrance = header.shapes.get(f"{DENOISER_PREFIX}input_blocks.0.0.weight")
    if entrance is not None:
        _refuse_channels(entrance[1], family, str(path))
    marked = "v_pred" in header.shapes
    prediction: Prediction | None = "epsilon" if family.prediction_in_file else None
    stated = _stated_prediction(header.metadata, family)
    # A schedule that ends in pure noise leaves an epsilon model nothing to learn there.
    zero_snr = "ztsnr" in header.shapes
    if marked or zero_snr:
        prediction = "v_prediction"
    elif stated is not None:
        prediction = stated
    return Detected(family, prediction, zero_snr)


def detect_folder(folder: Path) -> Detected:
    """Tell a folder in diffusers' layout by its JSON files; see `detect_file` for errors."""
    if not (folder / "model_index.json").is_file():
        files = sorted(folder.glob("*.safetensors"))
        hint = f" Did you mean {str(files[0])!r}?" if files else ""
        raise BaseError(f"{folder} has no model_index.json, so it is no diffusers model.{hint}")
    model_index = read_json(folder / "model_index.json")
    return detect_settings(
        model_index,
        read_json(folder / denoiser_of(model_index) / "config.json"),
        read_json(folder / "scheduler" / "scheduler_config.json"),
        str(folder),
    )


def detect_settings(
    model_index: dict[str, Any], denoiser: dict[str, Any], scheduler: dict[str, Any], where: str
) -> Detected:
    """As `detect_folder`, from the contents of the three files."""
    kind = str(model_index.get("_class_name") or "model of unknown kind")
    second = names_a_class(model_index.get("text_encoder_2"))
    if "Inpaint" in kind:
        raise BaseError(f"{where} is an inpainting model; {_TRAINABLE}. Choose the model it was made from.")
    if second and not names_a_class(model_index.get("text_encoder")):
        raise BaseError(f"{where} is the SDXL refiner, which styles are not trained on; choose the SDXL base.")
    if kind not in _PIPELINES:
        raise BaseError(f"{where} is a {kind}; {_TRAINABLE}.")
    if "EDM" in str(scheduler.get("_class_name", "")):
        raise BaseError(f"{where} uses the EDM noise formulation, which Patina does not train; {_TRAINABLE}.")
    family = next((family for family in FAMILIES.values() if family.is_folder(model_index, denoiser)), None)
    if family is None:
        raise BaseError(f"{where} is a {kind} of a kind that Patina does not know; {_TRAINABLE}.")
    _refuse_channels(int(denoiser.get("in_channels", family.latent_channels)), family, where)
    stated = scheduler.get("prediction_type", "epsilon")
    if stated not in ("epsilon", "v_prediction"):
        raise BaseError(f"{where} predicts {stated!r}; Patina trains models that predict epsilon or v_prediction.")
    return Detected(family, stated, zero_snr=bool(scheduler.get("rescale_betas_zero_snr")))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a diffusers model.

    Raises:
        BaseError: names the file that is missing or broken.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseError(f"{path} is missing, so its folder is no complete diffusers model.") from None
    except (OSError, ValueError):
        raise BaseError(f"{path} is no readable JSON file; get the model again.") from None
    if not isinstance(value, dict):
        raise BaseError(f"{path} does not hold a JSON object; get the model again.")
    return value


def _family_of_names(header: Header, path: Path) -> Family:
    for family in FAMILIES.values():
        if family.is_file(header.has):
            return family
    if header.has("conditioner.embedders.0.model."):
        raise BaseError(f"{path} is the SDXL refiner, which styles are not trained on; choose the SDXL base.")
    for name, title in _OTHER_MODELS.items():
        if header.has(DENOISER_PREFIX + name, name):
            raise BaseError(f"{path} is a {title} model; {_TRAINABLE}.")
    if header.has(DENOISER_PREFIX):
        raise BaseError(f"{path} has no text encoder inside; choose the full checkpoint, not one with parts left out.")
    titles = ", ".join(family.title for family in FAMILIES.values() if family.configs)
    raise BaseError(f"{path} is no checkpoint that Patina knows ({titles}).")


def _refuse_parts(header: Header, path: Path) -> None:
    """Files that people mistake for a base, each by its own names."""
    if any("lora_" in name or name.endswith((".lora_A.weight", ".lora_down.weight")) for name in header.shapes):
        raise BaseError(f"{path} is a style file (LoRA), not a base; give it to 'patina sample --adapter' instead.")
    if header.has("control_model.", "controlnet_"):
        raise BaseError(f"{path} is a ControlNet, not a base; {_TRAINABLE}.")
    if header.has("down_blocks.", "encoder.down_blocks."):
        raise BaseError(
            f"{path} holds one part of a diffusers model; choose the folder that has model_index.json in it."
        )


def _refuse_channels(channels: int, family: Family, where: str) -> None:
    # An inpainting model sees beside the noisy picture a mask and the picture under it.
    if channels == 2 * family.latent_channels + 1:
        raise BaseError(f"{where} is an inpainting model; {_TRAINABLE}. Choose the model it was made from.")
    if channels != family.latent_channels:
        raise BaseError(
            f"{where} takes {channels} input channels instead of {family.latent_channels}, so it does more than draw "
            f"from text; {_TRAINABLE}."
        )


def _stated_prediction(metadata: dict[str, str], family: Family) -> Prediction | None:
    """What ModelSpec metadata in the header says, if anything."""
    stated = metadata.get("modelspec.prediction_type", "").lower()
    if stated in ("v", "v_prediction", "v-prediction"):
        return "v_prediction"
    if stated in ("epsilon", "eps"):
        return "epsilon"
    architecture = metadata.get("modelspec.architecture", "")
    return next((prediction for prediction, name in family.architectures.items() if architecture == name), None)

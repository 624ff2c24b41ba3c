"""Write trainer/bases/configs: what each family's single-file checkpoints leave out.

    pip download --no-deps open_clip_torch --dest FOLDER
    python tools/make_base_configs.py FOLDER/open_clip_torch-*.whl

The settings are facts about public models, as their own configuration files state them; only values that differ from
the defaults of diffusers and transformers are written. CLIP's vocabulary is built from the list of merges in the
wheel of open_clip_torch (MIT).
"""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[1] / "trainer" / "bases" / "configs"
MERGES_IN_WHEEL = "open_clip/bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SIZE = 49_408
START, END = "<|startoftext|>", "<|endoftext|>"

Settings = dict[str, Any]


def unet(**settings: Any) -> Settings:
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        **settings,
    }


def four_level_unet(**settings: Any) -> Settings:
    """The UNet of Stable Diffusion 1 and 2: four levels, attention at the upper three."""
    return unet(
        block_out_channels=[320, 640, 1280, 1280],
        down_block_types=[*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        up_block_types=["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        **settings,
    )


def vae(sample_size: int, scaling_factor: float) -> Settings:
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": sample_size,
        "scaling_factor": scaling_factor,
    }


def text_encoder(
    kind: str, width: int, heads: int, layers: int, *, act: str, projection: int, pad_token: int
) -> Settings:
    return {
        "architectures": [kind],
        "model_type": "clip_text_model",
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": 77,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "hidden_act": act,
        "projection_dim": projection,
        "bos_token_id": VOCABULARY_SIZE - 2,
        "eos_token_id": VOCABULARY_SIZE - 1,
        "pad_token_id": pad_token,
    }


def scheduler(kind: str, **settings: Any) -> Settings:
    return {
        "_class_name": kind,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        **settings,
    }


def model_index(pipeline: str, schedule: str, encoders: list[str], **settings: Any) -> Settings:
    index: Settings = {
        "_class_name": pipeline,
        "scheduler": ["diffusers", schedule],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    for number, encoder in enumerate(encoders, start=1):
        ending = "" if number == 1 else f"_{number}"
        index[f"text_encoder{ending}"] = ["transformers", encoder]
        index[f"tokenizer{ending}"] = ["transformers", "CLIPTokenizer"]
    return {**index, **settings}


CLIP_L = text_encoder("CLIPTextModel", 768, 12, 12, act="quick_gelu", projection=768, pad_token=VOCABULARY_SIZE - 1)
# The checkpoint holds OpenCLIP's 24 layers; the last one is left out because SD2 reads the one before it.
CLIP_H = text_encoder("CLIPTextModel", 1024, 16, 23, act="gelu", projection=1024, pad_token=0)
CLIP_BIG_G = text_encoder("CLIPTextModelWithProjection", 1280, 20, 32, act="gelu", projection=1280, pad_token=0)

NO_CHECKER: Settings = {
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
}
SD2_UNET: Settings = {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}

FAMILIES: dict[str, dict[str, Settings]] = {
    # stable-diffusion-v1-5/stable-diffusion-v1-5
    "sd1": {
        "model_index": model_index("StableDiffusionPipeline", "PNDMScheduler", ["CLIPTextModel"], **NO_CHECKER),
        "unet/config": four_level_unet(attention_head_dim=8, cross_attention_dim=768, sample_size=64),
        "vae/config": vae(512, 0.18215),
        "text_encoder/config": CLIP_L,
        "scheduler/scheduler_config": scheduler("PNDMScheduler", skip_prk_steps=True),
    },
    # stabilityai/stable-diffusion-2-1-base
    "sd2": {
        "model_index": model_index("StableDiffusionPipeline", "PNDMScheduler", ["CLIPTextModel"], **NO_CHECKER),
        "unet/config": four_level_unet(**SD2_UNET, sample_size=64),
        "vae/config": vae(768, 0.18215),
        "text_encoder/config": CLIP_H,
        "scheduler/scheduler_config": scheduler("PNDMScheduler", skip_prk_steps=True),
    },
    # stabilityai/stable-diffusion-2-1
    "sd2_v": {
        "model_index": model_index("StableDiffusionPipeline", "DDIMScheduler", ["CLIPTextModel"], **NO_CHECKER),
        "unet/config": four_level_unet(**SD2_UNET, sample_size=96, upcast_attention=True),
        "vae/config": vae(768, 0.18215),
        "text_encoder/config": CLIP_H,
        "scheduler/scheduler_config": scheduler("DDIMScheduler", prediction_type="v_prediction"),
    },
    # stabilityai/stable-diffusion-xl-base-1.0
    "sdxl": {
        "model_index": model_index(
            "StableDiffusionXLPipeline",
            "EulerDiscreteScheduler",
            ["CLIPTextModel", "CLIPTextModelWithProjection"],
            force_zeros_for_empty_prompt=True,
        ),
        "unet/config": unet(
            block_out_channels=[320, 640, 1280],
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            sample_size=128,
        ),
        "vae/config": vae(1024, 0.13025),
        "text_encoder/config": CLIP_L,
        "text_encoder_2/config": CLIP_BIG_G,
        "scheduler/scheduler_config": scheduler("EulerDiscreteScheduler", timestep_spacing="leading"),
    },
}


def byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of CLIP's vocabulary: bytes that print stand for themselves."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = range(256, 256 + 256 - len(printing))
    return [chr(code) for code in [*printing, *others]]


def vocabulary(merges: list[str]) -> dict[str, int]:
    letters = byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(m.split()) for m in merges), START, END]
    return {word: number for number, word in enumerate(words)}


def merges_in(wheel: Path) -> list[str]:
    """The merges that CLIP uses: the first ones of a longer list, as many as its vocabulary has room for."""
    with zipfile.ZipFile(wheel) as archive:
        lines = gzip.decompress(archive.read(MERGES_IN_WHEEL)).decode("utf-8").split("\n")
    return lines[1 : 1 + VOCABULARY_SIZE - 2 * 256 - 2]


def write(name: str, value: Settings, indent: int | None = 2) -> None:
    target = CONFIGS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def main(wheel: Path) -> None:
    for family, parts in FAMILIES.items():
        for name, value in parts.items():
            write(f"{family}/{name}", value)
    merges = merges_in(wheel)
    write("clip_tokenizer/vocab", vocabulary(merges), indent=None)
    write(
        "clip_tokenizer/tokenizer_config",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": START,
            "eos_token": END,
            "unk_token": END,
            "pad_token": END,
        },
    )
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    (CONFIGS / "clip_tokenizer" / "merges.txt").write_text(text, encoding="utf-8")
    print(f"wrote {CONFIGS}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

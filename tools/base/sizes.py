"""The base's architecture at two sizes, and new models of it.

Built for a fixed budget: all weights under 60 MB in fp16, and an image of 20 guided steps in about a second on
two CPU cores. Self- and cross-attention sit at the upper two levels of the UNet, where an adapter finds them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 16
WHOLE_WORDS = ("sks", "style")
"""Kept whole in every vocabulary: what people call a style of their own."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """One architecture."""

    pixels: int
    """Side of an image."""
    autoencoder_channels: tuple[int, ...]
    """Of each level; each level after the first halves the side."""
    autoencoder_layers: int
    unet_channels: tuple[int, ...]
    unet_layers: int
    head_channels: int
    text_width: int
    text_layers: int
    vocabulary: int
    """Entries of the byte-pair vocabulary at most."""
    batch: int
    """Samples of one UNet step at the device this size is meant for."""
    autoencoder_batch: int

    @property
    def latent_side(self) -> int:
        """Side of a latent."""
        return self.pixels // 2 ** (len(self.autoencoder_channels) - 1)


SIZES = {
    "full": Size(
        pixels=128,
        autoencoder_channels=(24, 48, 96, 128),
        autoencoder_layers=1,
        unet_channels=(64, 128, 256),
        unet_layers=1,
        head_channels=32,
        text_width=256,
        text_layers=4,
        vocabulary=4096,
        batch=512,
        autoencoder_batch=128,
    ),
    "small": Size(
        pixels=128,
        autoencoder_channels=(24, 48, 96, 128),
        autoencoder_layers=1,
        unet_channels=(64, 128, 192),
        unet_layers=1,
        head_channels=16,
        text_width=192,
        text_layers=3,
        vocabulary=4096,
        batch=32,
        autoencoder_batch=16,
    ),
}


def new_autoencoder(size: Size) -> Any:
    """An untrained ``AutoencoderKL``: images (B, 3, pixels, pixels) to latents (B, 4, latent_side, latent_side)."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(size.autoencoder_channels)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=size.pixels,
        block_out_channels=size.autoencoder_channels,
        layers_per_block=size.autoencoder_layers,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=8,
        # Attention over 16 x 16 positions buys nothing measurable here and costs time at every decode.
        mid_block_add_attention=False,
    )


def new_unet(size: Size) -> Any:
    """An untrained ``UNet2DConditionModel`` on this size's latents."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    heads = tuple(channels // size.head_channels for channels in size.unet_channels)
    return UNet2DConditionModel(
        sample_size=size.latent_side,
        in_channels=4,
        out_channels=4,
        block_out_channels=size.unet_channels,
        layers_per_block=size.unet_layers,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=size.text_width,
        # diffusers reads attention_head_dim of this class as the number of heads.
        attention_head_dim=heads,
        norm_num_groups=16,
    )


def new_text_encoder(size: Size, vocabulary: int) -> Any:
    """An untrained ``CLIPTextModel`` over ``vocabulary`` tokens, of which 0 starts and 1 ends a caption."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=size.text_width,
            intermediate_size=size.text_width * 8 // 3,
            projection_dim=size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_width // 32,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def write_tokenizer(captions: Iterable[str], size: Size, folder: Path) -> Any:
    """Learn a byte-pair vocabulary from captions, write it as a ``CLIPTokenizer`` folder, and return that tokenizer.

    Words that occur only once in the captions are spelled out of pieces; `WHOLE_WORDS` never are.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    # CLIP's own rule of what a word is; the tokenizer that reads the vocabulary later applies it too.
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary,
        min_frequency=2,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    # A letter that ends a word is an entry of its own; with all of them any word can be spelled out.
    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x100))]
    learner.train_from_iterator([*captions, *letters, *WHOLE_WORDS * 1000], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    learner.model.save(str(folder))
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def scheduler_config(prediction: str = "v_prediction") -> dict[str, Any]:
    """Stable Diffusion's scaled-linear betas, as a ``DDIMScheduler`` configuration.

    ``v_prediction`` comes with zero terminal SNR and timesteps that begin at the last one (Lin et al.,
    arXiv 2305.08891), so that a picture starts from noise that holds nothing of it; ``epsilon`` with neither.
    """
    zero = prediction == "v_prediction"
    return {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": zero,
        "timestep_spacing": "trailing" if zero else "leading",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }

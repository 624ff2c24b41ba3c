"""A loaded base: the frozen modules of one Stable Diffusion model and what is needed to condition them.

Shapes: B batch, L tokens, D text width, P pooled width, C latent channels, H x W pixels, h x w latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer.bases.placement import Placement
from trainer.bases.registry import Family, Prediction, TextEncoderSpec
from trainer.bases.transfer import sent


@dataclass(frozen=True)
class TextFeatures:
    """What the UNet sees of texts: ``hidden`` (B, L, D) and, where the family has it, ``pooled`` (B, P)."""

    hidden: Tensor
    pooled: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> TextFeatures:
        pooled = None if self.pooled is None else self.pooled.to(device, dtype)
        return TextFeatures(self.hidden.to(device, dtype), pooled)

    def rows(self, index: Tensor | Sequence[int]) -> TextFeatures:
        """The rows at ``index``, in that order."""
        chosen = sent(torch.as_tensor(index), self.hidden.device)
        pooled = None if self.pooled is None else self.pooled[chosen]
        return TextFeatures(self.hidden[chosen], pooled)

    @staticmethod
    def cat(parts: Sequence[TextFeatures]) -> TextFeatures:
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return TextFeatures(torch.cat([part.hidden for part in parts]), torch.cat(pooled) if pooled else None)


@dataclass(frozen=True)
class SizeFacts:
    """SDXL's size conditioning of one image, in pixels: what the picture was, and what was cut from it."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]

    def ids(self) -> tuple[int, ...]:
        """In the pipeline's order: original height, width, crop top, left, target height, width."""
        (ow, oh), (left, top), (tw, th) = self.original, self.crop, self.target
        return (oh, ow, top, left, th, tw)


@dataclass
class Base:
    """A frozen Stable Diffusion model, ready to train on and to draw with.

    Attributes:
        unet, vae, text_encoders: diffusers' and transformers' own modules, which bring no types.
        identity: SHA-256 over the UNet's tensors (``patina.base_sha256``).
        vae_identity, text_identity: name the encoders in cache keys.
        resolution: native side in pixels.
        dtype: of the UNet's weights; the VAE has its own (``vae.dtype``).
        zero_empty_negative: whether an empty negative prompt means zeros (SDXL's pipeline) instead of the encoded "".
        placement: which of its parts are on the device; parked ones come when they are needed.
        previews: how pictures are decoded, as ``memory.previews`` says.
        notes: sentences about how the base was opened that the user should see.
    """

    family: Family
    source: str
    unet: Any
    vae: Any
    text_encoders: dict[str, Any]
    tokenizers: dict[str, Any]
    scheduler_config: dict[str, Any]
    prediction: Prediction
    resolution: int
    identity: str
    vae_identity: str
    text_identity: str
    device: torch.device
    dtype: torch.dtype
    clip_skip: int = 0
    zero_empty_negative: bool = False
    notes: list[str] = field(default_factory=list)
    previews: Literal["whole", "sliced", "parked"] = "whole"
    placement: Placement = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.placement = Placement(
            {
                "unet": lambda: [self.unet],
                "vae": lambda: [self.vae],
                "text": lambda: list(self.text_encoders.values()),
            },
            self.device,
        )

    @property
    def roots(self) -> dict[str, nn.Module]:
        """The modules that adapters may attach to, by root name."""
        return {"unet": self.unet, **self.text_encoders}

    @property
    def title(self) -> str:
        return self.family.title if self.source == "bundled" else f"{self._short_source} ({self.family.title})"

    @property
    def _short_source(self) -> str:
        """A hub id as it is, a path's last part."""
        parts = self.source.replace("\\", "/").rstrip("/").split("/")
        return self.source if len(parts) == 2 and parts[0] not in ("", ".", "..", "~") else parts[-1]

    @property
    def vae_factor(self) -> int:
        """Pixels per latent cell along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def side_multiple(self) -> int:
        """Sides in pixels must be multiples of this, so that every level of the UNet halves evenly."""
        return int(self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def token_limit(self) -> int:
        """Tokens of a prompt that are read, without the start and end marks."""
        return min(int(t.model_max_length) for t in self.tokenizers.values()) - 2

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Signal share of each training timestep, (T,), fp32, on the CPU; from the base's own scheduler."""
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        known = {
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "rescale_betas_zero_snr",
        }
        scheduler = DDPMScheduler(**{k: v for k, v in self.scheduler_config.items() if k in known})
        table: Tensor = scheduler.alphas_cumprod.float()
        return table

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` in the first text encoder, without the start and end marks."""
        tokenizer = next(iter(self.tokenizers.values()))
        return len(tokenizer(text, truncation=False, verbose=False).input_ids) - 2

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Texts as the family's pipelines encode them; longer texts than `token_limit` are cut.

        Source: ``encode_prompt`` of diffusers' StableDiffusionPipeline and StableDiffusionXLPipeline.
        """
        hidden: list[Tensor] = []
        pooled: Tensor | None = None
        with self.placement.ready("text"):
            for spec in self.family.text_encoders:
                states, projected = self._encode_with(spec, list(texts))
                hidden.append(states)
                pooled = projected if spec.pooled else pooled
        return TextFeatures(torch.cat(hidden, dim=-1), pooled)

    def encode_negatives(self, texts: Sequence[str]) -> TextFeatures:
        """Negative prompts as the family's pipelines encode them: where the base asks for it, an empty one is zeros.

        Source: ``force_zeros_for_empty_prompt`` of diffusers' StableDiffusionXLPipeline.
        """
        features = self.encode_texts(texts)
        if not self.zero_empty_negative:
            return features
        kept = torch.tensor([bool(text) for text in texts], device=features.hidden.device).to(features.hidden.dtype)
        pooled = None if features.pooled is None else features.pooled * kept[:, None]
        return TextFeatures(features.hidden * kept[:, None, None], pooled)

    def _encode_with(self, spec: TextEncoderSpec, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        encoder, tokenizer = self.text_encoders[spec.root], self.tokenizers[spec.root]
        tokens = tokenizer(
            texts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        device = next(encoder.parameters()).device
        mask = tokens.attention_mask.to(device) if getattr(encoder.config, "use_attention_mask", False) else None
        output = encoder(tokens.input_ids.to(device), attention_mask=mask, output_hidden_states=True)
        if spec.output == "penultimate":
            hidden = output.hidden_states[-(self.clip_skip + 2)]
        elif self.clip_skip:
            hidden = _final_norm(encoder)(output.hidden_states[-(self.clip_skip + 1)])
        else:
            hidden = output.last_hidden_state
        return hidden, output.text_embeds if spec.pooled else None

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, H, W) in [-1, 1] to the posterior's mean and standard deviation (B, C, h, w), unscaled fp32."""

        def moments() -> tuple[Tensor, Tensor]:
            posterior = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist
            return posterior.mean.float(), posterior.std.float()

        with self.placement.ready("vae"):
            mean, std = moments()
            if self._widened_vae(mean):
                mean, std = moments()
        return mean, std

    def scale_latents(self, latents: Tensor) -> Tensor:
        """VAE space to the UNet's space."""
        shift = self.vae.config.get("shift_factor") or 0.0
        scaled: Tensor = (latents - shift) * self.vae.config.scaling_factor
        return scaled

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents of the UNet's space (B, C, h, w) to pixels (B, H, W, 3), uint8, on the CPU."""
        shift = self.vae.config.get("shift_factor") or 0.0

        def pixels() -> Tensor:
            unscaled = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor + shift
            decoded: Tensor = self.vae.decode(unscaled, return_dict=False)[0].float()
            return decoded

        with self.decoding():
            drawn = pixels()
            if self._widened_vae(drawn):
                drawn = pixels()
        levels = ((drawn / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return levels.permute(0, 2, 3, 1).cpu()

    @property
    def careful(self) -> bool:
        """Whether pictures are drawn one by one and decoded in tiles, because the device has little room."""
        return self.previews != "whole" or "unet" in self.placement.parked

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Room for the VAE, made once for several pictures; `decode` makes it for itself otherwise."""
        with ExitStack() as stack:
            if self.previews == "parked":
                stack.enter_context(self.placement.away("unet"))
            if self.careful and not self.vae.use_tiling:
                # Tiles of half the native side: diffusers' own start only above it.
                self.vae.enable_tiling()
                self.vae.tile_sample_min_size = self.resolution // 2
                self.vae.tile_latent_min_size = self.resolution // 2 // self.vae_factor
                stack.callback(self.vae.disable_tiling)
            stack.enter_context(self.placement.ready("vae"))
            yield

    def _widened_vae(self, output: Tensor) -> bool:
        """Make a half-precision VAE that overflowed (a black picture) an fp32 one; whether it was worth doing."""
        if self.vae.dtype == torch.float32 or bool(torch.isfinite(output).all()):
            return False
        nn.Module.to(self.vae, dtype=torch.float32)
        return True

    def conditioning(self, features: TextFeatures, sizes: Sequence[SizeFacts]) -> dict[str, Any]:
        """Keyword arguments of the UNet's forward pass for a batch (B rows of ``features``, B ``sizes``)."""
        arguments: dict[str, Any] = {"encoder_hidden_states": features.hidden}
        if self.family.time_ids:
            ids = torch.tensor([size.ids() for size in sizes], dtype=features.hidden.dtype)
            arguments["added_cond_kwargs"] = {
                "text_embeds": features.pooled,
                "time_ids": sent(ids, features.hidden.device),
            }
        return arguments

    def scheduler(self, name: str) -> Any:
        """A diffusers scheduler by Patina's name (`trainer.config.Scheduler`), set up for this base."""
        import diffusers

        class_name, extra = SCHEDULERS[name]
        config = {**self.scheduler_config, "prediction_type": self.prediction}
        return getattr(diffusers, class_name).from_config(config, **extra)


SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++_2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": False}),
    "dpm++_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
}


def _final_norm(encoder: nn.Module) -> nn.Module:
    """The text encoder's last layer norm, wherever the installed transformers keeps it."""
    for holder in (encoder, getattr(encoder, "text_model", None)):
        norm = getattr(holder, "final_layer_norm", None)
        if isinstance(norm, nn.Module):
            return norm
    raise AttributeError("the text encoder has no final_layer_norm")

"""Opened bases of Stable Diffusion 1, 2 and XL: a UNet, conditioned by CLIP's text features.

Shapes: B batch, L tokens, D text width, P pooled width, C latent channels, h x w latent cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.bases.base import Base, Conditioning, SizeFacts, TextFeatures
from trainer.bases.families.family import Prediction, TextEncoderSpec
from trainer.bases.placement import sent
from trainer.bases.process import Diffusion
from trainer.bases.quiet import quiet_libraries


class StableDiffusionBase(Base):
    """A base of Stable Diffusion 1 or 2, or one built like them."""

    process: Diffusion

    @staticmethod
    def process_of(scheduler: Mapping[str, Any], prediction: Prediction, device: torch.device) -> Diffusion:
        return Diffusion(scheduler, prediction, device)

    @staticmethod
    def denoiser_class() -> Any:
        """diffusers' class of the denoiser."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        return UNet2DConditionModel

    @property
    def prediction(self) -> Prediction:
        return self.process.prediction

    @property
    def side_multiple(self) -> int:
        return self.vae_factor * 2 ** (self.levels - 1)

    @property
    def levels(self) -> int:
        return len(self.denoiser.config.block_out_channels)

    def checkpoint_levels(self, count: int) -> None:
        """From the outermost level inwards; all of them includes the middle.

        The outer levels keep the most for the least arithmetic: their maps are the largest and their channels the
        fewest.
        """
        unet = self.denoiser
        if count == 0:
            unet.disable_gradient_checkpointing()
            return
        unet.enable_gradient_checkpointing()
        inner = [
            *unet.down_blocks[count:],
            *unet.up_blocks[: max(0, self.levels - count)],
            *([unet.mid_block] if count < self.levels and unet.mid_block is not None else []),
        ]
        for block in inner:
            for module in block.modules():
                if hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = False

    @property
    def style_layers(self) -> Sequence[nn.Module]:
        """The outermost blocks: strokes, edges and colours pass there, while subjects are made in between."""
        unet = self.denoiser
        return unet.up_blocks[-1], unet.up_blocks[-2], unet.down_blocks[0]

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Source: ``encode_prompt`` of diffusers' StableDiffusionPipeline and StableDiffusionXLPipeline."""
        hidden: list[Tensor] = []
        pooled: Tensor | None = None
        with self.placement.ready("text"):
            for spec in self.family.text_encoders:
                states, projected = self._encode_with(spec, list(texts))
                hidden.append(states)
                pooled = projected if spec.pooled else pooled
        return TextFeatures(torch.cat(hidden, dim=-1), pooled)

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
            hidden = output.hidden_states[-2]
        elif self.clip_skip:
            hidden = _final_norm(encoder)(output.hidden_states[-(self.clip_skip + 1)])
        else:
            hidden = output.last_hidden_state
        return hidden, output.text_embeds if spec.pooled else None

    def conditioning(self, features: TextFeatures, sizes: Sequence[SizeFacts]) -> Conditioning:
        """Keyword arguments of the UNet's forward pass."""
        return {"encoder_hidden_states": features.hidden}

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        layout = torch.channels_last if noisy.device.type == "cuda" else torch.preserve_format
        answer: Tensor = self.denoiser(
            noisy.to(self.dtype, memory_format=layout), timesteps, return_dict=False, **conditioning
        )[0]
        return answer.float()

    def pipeline(self) -> Any:
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        with quiet_libraries():
            return StableDiffusionPipeline(
                **self._components(), safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )

    def _components(self) -> dict[str, Any]:
        """The parts under the names of diffusers' pipelines."""
        parts: dict[str, Any] = {"unet": self.denoiser, "vae": self.vae, "scheduler": self.process.scheduler("ddim")}
        for spec in self.family.text_encoders:
            parts[spec.folder] = self.text_encoders[spec.root]
            parts[spec.tokenizer_folder] = self.tokenizers[spec.root]
        return parts


class StableDiffusionXLBase(StableDiffusionBase):
    """A base of Stable Diffusion XL: its UNet is also told the pooled text, the picture's size and its crop."""

    def conditioning(self, features: TextFeatures, sizes: Sequence[SizeFacts]) -> Conditioning:
        ids = torch.tensor([_time_ids(size) for size in sizes], dtype=features.hidden.dtype)
        added = {"text_embeds": features.pooled, "time_ids": sent(ids, features.hidden.device)}
        return {**super().conditioning(features, sizes), "added_cond_kwargs": added}

    def pipeline(self) -> Any:
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

        with quiet_libraries():
            return StableDiffusionXLPipeline(
                **self._components(),
                force_zeros_for_empty_prompt=self.zero_empty_negative,
                add_watermarker=False,
            )


def _time_ids(size: SizeFacts) -> tuple[int, ...]:
    """In the pipeline's order: original height, width, crop top, left, target height, width."""
    (ow, oh), (left, top), (tw, th) = size.original, size.crop, size.target
    return (oh, ow, top, left, th, tw)


def _final_norm(encoder: nn.Module) -> nn.Module:
    """The text encoder's last layer norm, wherever the installed transformers keeps it."""
    for holder in (encoder, getattr(encoder, "text_model", None)):
        norm = getattr(holder, "final_layer_norm", None)
        if isinstance(norm, nn.Module):
            return norm
    raise AttributeError("the text encoder has no final_layer_norm")

"""Opened bases of Stable Diffusion 1, 2 and XL: a UNet, conditioned by CLIP's text features.

Shapes: B batch, L tokens, D text width, P pooled width, C latent channels, h x w latent cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.bases.base import Base, Conditioning, SizeFacts, TextFeatures, cat_states
from trainer.bases.families.family import Prediction, TextEncoderSpec
from trainer.bases.placement import sent
from trainer.bases.process import Diffusion
from trainer.bases.prompts import Part, read_weights
from trainer.bases.quiet import quiet_libraries
from trainer.bases.windows import MOST_WINDOWS, Piece, Window, split

_STATES, _MASK = "encoder_hidden_states", "encoder_attention_mask"
"""Arguments of the UNet: text states, and which of them each row sees."""


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
        """From the middle outwards: there shapes are made, and last of all strokes and colours."""
        unet = self.denoiser
        middle = [] if unet.mid_block is None else [unet.mid_block]
        return (*middle, *unet.up_blocks)

    @property
    def windows(self) -> int:
        return MOST_WINDOWS

    def encode_texts(self, texts: Sequence[str], *, windows: int | None = None) -> TextFeatures:
        """Source: ``encode_prompt`` of diffusers' StableDiffusionPipeline and StableDiffusionXLPipeline."""
        return self._encode([[Part(text)] for text in texts], windows or self.windows)

    def encode_prompts(self, prompts: Sequence[str]) -> TextFeatures:
        return self._encode([read_weights(prompt) for prompt in prompts], self.windows)

    def unread(self, prompt: str) -> int:
        parts, spec = read_weights(prompt), self.family.text_encoders[0]
        whole, read = (self._windows(spec, parts, most) for most in (len(prompt) + 1, self.windows))
        return sum(len(window.tokens) for window in whole) - sum(len(window.tokens) for window in read)

    def _encode(self, texts: Sequence[Sequence[Part]], most: int) -> TextFeatures:
        """Each text's windows are encoded by themselves and their states joined; pooled is what the first one says.

        All texts' first windows go through together, then all second ones, so that a row stays one text's; those of a
        text that is alone go through at once.
        """
        specs = self.family.text_encoders
        cut = {spec.root: [self._windows(spec, text, most) for text in texts] for spec in specs}
        counts = [max(len(cut[spec.root][row]) for spec in specs) for row in range(len(texts))]
        hidden: list[Tensor] = []
        pooled: Tensor | None = None
        with self.placement.ready("text"):
            for spec in specs:
                filled = [[*own, *[Window()] * max(counts)][: max(counts)] for own in cut[spec.root]]
                if len(filled) == 1:
                    states, projected = self._encode_with(spec, filled[0])
                    hidden.append(states.flatten(0, 1).unsqueeze(0))
                    projected = None if projected is None else projected[:1]
                else:
                    turns = [self._encode_with(spec, own) for own in zip(*filled, strict=True)]
                    hidden.append(torch.cat([states for states, _ in turns], dim=1))
                    projected = turns[0][1]
                pooled = projected if pooled is None else pooled
        joined = torch.cat(hidden, dim=-1)
        if min(counts) == max(counts):
            return TextFeatures(joined, pooled)
        length = joined.shape[1] // max(counts)
        rows = [states[: count * length] for states, count in zip(joined, counts, strict=True)]
        return TextFeatures.of(rows, None if pooled is None else list(pooled))

    def _windows(self, spec: TextEncoderSpec, parts: Sequence[Part], most: int) -> list[Window]:
        tokenizer = self.tokenizers[spec.root]

        def piece(part: Part) -> Piece:
            if part.weight is None:
                return None
            ids = tokenizer(part.text, add_special_tokens=False, truncation=False, verbose=False).input_ids
            return ids, part.weight

        comma = tokenizer.get_vocab().get(",</w>")
        return split([piece(part) for part in parts], tokenizer.model_max_length - 2, comma, most)

    def _encode_with(self, spec: TextEncoderSpec, windows: Sequence[Window]) -> tuple[Tensor, Tensor | None]:
        """States (B, L, D) of B windows, and what is pooled of them (B, P) where the family wants it."""
        encoder, tokenizer = self.text_encoders[spec.root], self.tokenizers[spec.root]
        device, length = next(encoder.parameters()).device, tokenizer.model_max_length
        ids = torch.full((len(windows), length), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        weights = torch.ones(len(windows), length)
        for row, window in enumerate(windows):
            end = len(window.tokens) + 2
            ids[row, :end] = torch.tensor([tokenizer.bos_token_id, *window.tokens, tokenizer.eos_token_id])
            mask[row, :end] = 1
            weights[row, 1 : end - 1] = torch.tensor(window.weights)
        used = mask.to(device) if getattr(encoder.config, "use_attention_mask", False) else None
        output = encoder(ids.to(device), attention_mask=used, output_hidden_states=True)
        if spec.output == "penultimate":
            hidden = output.hidden_states[-2]
        elif self.clip_skip:
            hidden = _final_norm(encoder)(output.hidden_states[-(self.clip_skip + 1)])
        else:
            hidden = output.last_hidden_state
        if bool((weights != 1).any()):
            hidden = _weighed(hidden, weights.to(hidden.device))
        return hidden, output.text_embeds if spec.pooled else None

    def conditioning(self, features: TextFeatures, sizes: Sequence[SizeFacts]) -> Conditioning:
        """Keyword arguments of the UNet's forward pass."""
        return _told(features.hidden, features.lengths)

    def joined(self, parts: Sequence[Conditioning]) -> Conditioning:
        states = []
        for part in parts:
            mask: Tensor | None = part.get(_MASK)
            lengths = None if mask is None else tuple(mask.sum(dim=1).tolist())
            states.append((part[_STATES], lengths))
        rest = [{key: value for key, value in part.items() if key not in (_STATES, _MASK)} for part in parts]
        return {**super().joined(rest), **_told(*cat_states(states))}

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


def _told(hidden: Tensor, lengths: tuple[int, ...] | None) -> Conditioning:
    """Text states (B, L, D) as the UNet takes them; where texts differ in length it must not see what fills them up."""
    if lengths is None:
        return {_STATES: hidden}
    places = torch.arange(hidden.shape[1])
    mask = torch.stack([places < length for length in lengths]).to(torch.int64)
    return {_STATES: hidden, _MASK: sent(mask, hidden.device)}


def _weighed(hidden: Tensor, weights: Tensor) -> Tensor:
    """States (B, L, D) times their tokens' weights (B, L), brought back to the mean they had.

    Source: "Original" emphasis of Stable Diffusion web UI, for each window by itself.
    """
    louder = hidden * weights.to(hidden.dtype)[..., None]
    every = (1, 2)
    restored = louder * (hidden.mean(dim=every, keepdim=True) / louder.mean(dim=every, keepdim=True))
    plain = (weights == 1).all(dim=1)
    return torch.where(plain[:, None, None], hidden, restored)


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

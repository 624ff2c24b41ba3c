"""An opened base: frozen modules, and what training and drawing ask of them. Each family has a subclass.

Shapes: B batch, L tokens, D text width, P pooled width, C latent channels, H x W pixels, h x w latent cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from trainer.bases.families.family import Family, Prediction, TextEncoderSpec
from trainer.bases.placement import Placement, sent
from trainer.bases.process import Process
from trainer.hardware import give_back_memory


@dataclass(frozen=True)
class TextFeatures:
    """What the denoiser sees of texts.

    Attributes:
        hidden: (B, L, D); a text in fewer windows than another is followed by zeros.
        pooled: (B, P), where the family has it.
        lengths: how many of the L states are the text's own, for each row; None where all are.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    lengths: tuple[int, ...] | None = None

    @staticmethod
    def of(hidden: Sequence[Tensor], pooled: Sequence[Tensor] | None = None) -> TextFeatures:
        """Rows of hidden states (L, D), whose L may differ, and of pooled ones (P,)."""
        lengths = tuple(len(row) for row in hidden)
        longest = max(lengths)
        return TextFeatures(
            torch.stack([pad(row, (0, 0, 0, longest - len(row))) if len(row) < longest else row for row in hidden]),
            torch.stack(list(pooled)) if pooled else None,
            lengths if min(lengths) < longest else None,
        )

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> TextFeatures:
        pooled = None if self.pooled is None else self.pooled.to(device, dtype)
        return TextFeatures(self.hidden.to(device, dtype), pooled, self.lengths)

    def rows(self, index: Tensor | Sequence[int]) -> TextFeatures:
        """The rows at ``index``, in that order, as long as the longest of them."""
        chosen = sent(torch.as_tensor(index), self.hidden.device)
        pooled = None if self.pooled is None else self.pooled[chosen]
        hidden = self.hidden[chosen]
        if self.lengths is None:
            return TextFeatures(hidden, pooled)
        lengths = tuple(self.lengths[i] for i in torch.as_tensor(index).tolist())
        longest = max(lengths)
        return TextFeatures(hidden[:, :longest], pooled, lengths if min(lengths) < longest else None)

    @staticmethod
    def cat(parts: Sequence[TextFeatures]) -> TextFeatures:
        pooled = [part.pooled for part in parts if part.pooled is not None]
        hidden, lengths = cat_states([(part.hidden, part.lengths) for part in parts])
        return TextFeatures(hidden, torch.cat(pooled) if pooled else None, lengths)


def cat_states(parts: Sequence[tuple[Tensor, tuple[int, ...] | None]]) -> tuple[Tensor, tuple[int, ...] | None]:
    """Hidden states (B, L, D) with the lengths of their rows, one below the other; zeros fill up the shorter ones."""
    longest = max(hidden.shape[1] for hidden, _ in parts)
    if all(hidden.shape[1] == longest and lengths is None for hidden, lengths in parts):
        return torch.cat([hidden for hidden, _ in parts]), None
    lengths = tuple(n for hidden, own in parts for n in (own or (hidden.shape[1],) * len(hidden)))
    filled = [pad(hidden, (0, 0, 0, longest - hidden.shape[1])) for hidden, _ in parts]
    return torch.cat(filled), lengths


@dataclass(frozen=True)
class SizeFacts:
    """The size of one image, in pixels, for families that are told it: what it was, and what was cut from it."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]

    @staticmethod
    def whole(width: int, height: int) -> SizeFacts:
        """Of a picture that nothing was cut from."""
        return SizeFacts((width, height), (0, 0), (width, height))


Conditioning = Mapping[str, Any]
"""What the denoiser is told beside latents and timestep, for a batch of B rows."""


@dataclass
class Base(ABC):
    """A frozen model, ready to train on and to draw with.

    Attributes:
        denoiser, vae, text_encoders: diffusers' and transformers' own modules, which bring no types.
        process: how it was trained to take noise away.
        identity: SHA-256 over the denoiser's tensors (``patina.base_sha256``).
        vae_identity, text_identity: name the encoders in cache keys.
        resolution: native side in pixels.
        dtype: of the denoiser's weights; the VAE has its own (``vae.dtype``).
        zero_empty_negative: whether an empty negative prompt means zeros (SDXL's pipeline) instead of the encoded "".
        placement: which of its parts are on the device; parked ones come when they are needed.
        previews: how pictures are decoded, as ``memory.previews`` says.
        notes: sentences about how the base was opened that the user should see.
        warnings: those by which it would be trained in vain, if they are right.
    """

    family: Family
    source: str
    denoiser: Any
    vae: Any
    text_encoders: dict[str, Any]
    tokenizers: dict[str, Any]
    process: Process
    resolution: int
    identity: str
    vae_identity: str
    text_identity: str
    device: torch.device
    dtype: torch.dtype
    clip_skip: int = 0
    zero_empty_negative: bool = False
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    previews: Literal["whole", "sliced", "parked"] = "whole"
    placement: Placement = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.placement = Placement(
            {
                "denoiser": lambda: [self.denoiser],
                "vae": lambda: [self.vae],
                "text": lambda: list(self.text_encoders.values()),
            },
            self.device,
        )

    @staticmethod
    @abstractmethod
    def process_of(scheduler: Mapping[str, Any], prediction: Prediction, device: torch.device) -> Process:
        """The noise process of a base with this scheduler configuration; errors as in its class."""

    @staticmethod
    @abstractmethod
    def denoiser_class() -> Any:
        """diffusers' class of the denoiser."""

    @staticmethod
    def vae_class() -> Any:
        """diffusers' class of the autoencoder."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL

    @staticmethod
    def text_encoder_class(spec: TextEncoderSpec) -> Any:
        """transformers' class of one text encoder."""
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        return CLIPTextModelWithProjection if spec.pooled else CLIPTextModel

    @property
    @abstractmethod
    def prediction(self) -> Prediction:
        """What the denoiser answers."""

    @property
    @abstractmethod
    def side_multiple(self) -> int:
        """Sides in pixels must be multiples of this, so that every level of the denoiser divides evenly."""

    @property
    @abstractmethod
    def levels(self) -> int:
        """How many levels of the denoiser `checkpoint_levels` can tell apart."""

    @abstractmethod
    def checkpoint_levels(self, count: int) -> None:
        """Let the ``count`` levels that keep the most compute twice instead of keeping results; 0 lets none."""

    @property
    @abstractmethod
    def style_layers(self) -> Sequence[nn.Module]:
        """Layers of the denoiser whose maps (B, C, h, w) say how a picture is drawn more than what it shows."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str], *, windows: int | None = None) -> TextFeatures:
        """Texts as the family's pipelines encode them; longer texts than `token_limit` are cut.

        Gradients reach adapters that learn on the text encoders, unless the caller wants none (``torch.no_grad``).

        Args:
            windows: most that are read of a text, at most `windows`, which None stands for.
        """

    def encode_prompts(self, prompts: Sequence[str]) -> TextFeatures:
        """As `encode_texts`, with the weights that a prompt gives its words (`trainer.bases.prompts`)."""
        return self.encode_texts(prompts)

    @abstractmethod
    def conditioning(self, features: TextFeatures, sizes: Sequence[SizeFacts]) -> Conditioning:
        """What `predict` is told of a batch: B rows of ``features`` and B ``sizes``."""

    def joined(self, parts: Sequence[Conditioning]) -> Conditioning:
        """What the rows of several batches are told, one below the other."""
        joined: Conditioning = _joined(parts)
        return joined

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's answer in fp32 to latents (B, C, h, w) at ``timesteps``, which is (B,) or a single number."""

    @abstractmethod
    def pipeline(self) -> Any:
        """The diffusers pipeline that other people would open this base with, on the same modules."""

    def errors(
        self,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        taught: Sequence[int] = (),
        mask: Tensor | None = None,
        *,
        huber: float | Tensor = 0.0,
    ) -> Tensor:
        """Mean squared error of each row's prediction, (B,), fp32: the loss before rows are weighed.

        Args:
            latents, noise: (B, C, h, w), scaled.
            timesteps: (B,), from `process`.
            conditioning: of B rows, and of those ``taught`` once more.
            taught: K rows that are to give what the base gives. They go through the denoiser a second time, as rows
                B to B + K, for which the caller has closed the bank's gates.
            mask: how much each cell counts, (B, 1, h, w), 0 to 1; the mean is over what counts, 0 where nothing does.
            huber: error from which on it counts in proportion (pseudo-Huber, 2 c (sqrt(d^2 + c^2) - c)), for all rows
                or each, (B,); 0 is never.
        """
        noisy = self.process.noised(latents, noise, timesteps)
        target = self.process.target(latents, noise, timesteps)
        if not taught:
            return _distance(self.predict(noisy, timesteps, conditioning) - target, mask, huber)
        again = sent(torch.tensor(taught), noisy.device)
        answers = self.predict(torch.cat([noisy, noisy[again]]), torch.cat([timesteps, timesteps[again]]), conditioning)
        learner, teacher = answers.split([len(noisy), len(again)])
        target = target.float().index_copy(0, again, teacher.detach())
        return _distance(learner - target, mask, huber)

    @property
    def roots(self) -> dict[str, nn.Module]:
        """The modules that adapters may attach to, by root name."""
        return {self.family.root: self.denoiser, **self.text_encoders}

    @property
    def guidance_rescale(self) -> float:
        """How far guided predictions are brought back to the spread they have without guidance, 0 to 1."""
        return min(self.process.guidance_rescale, self.family.guidance_rescale)

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
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def windows(self) -> int:
        """How many windows of a long text are read (`trainer.bases.windows`)."""
        return 1

    @property
    def window_tokens(self) -> int:
        """Tokens that the text encoder reads at once, without the start and end marks."""
        return min(int(t.model_max_length) for t in self.tokenizers.values()) - 2

    @property
    def token_limit(self) -> int:
        """Tokens of a prompt that are read, without the start and end marks."""
        return self.windows * self.window_tokens

    def tokens_of(self, text: str) -> dict[str, tuple[int, ...]]:
        """Ids of a text's tokens by text encoder, without the start and end marks."""
        return {
            root: tuple(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)
            for root, tokenizer in self.tokenizers.items()
        }

    def count_tokens(self, text: str) -> int:
        """Tokens of ``text`` in the first text encoder, without the start and end marks."""
        tokenizer = next(iter(self.tokenizers.values()))
        return len(tokenizer(text, truncation=False, verbose=False).input_ids) - 2

    def unread(self, prompt: str) -> int:
        """How many tokens at a prompt's end are beyond what the base reads."""
        return max(0, self.count_tokens(prompt) - self.token_limit)

    def encode_negatives(self, texts: Sequence[str]) -> TextFeatures:
        """Negative prompts as the family's pipelines encode them: where the base asks for it, an empty one is zeros.

        Source: ``force_zeros_for_empty_prompt`` of diffusers' StableDiffusionXLPipeline.
        """
        features = self.encode_prompts(texts)
        if not self.zero_empty_negative:
            return features
        kept = torch.tensor([bool(text) for text in texts], device=features.hidden.device).to(features.hidden.dtype)
        pooled = None if features.pooled is None else features.pooled * kept[:, None]
        return TextFeatures(features.hidden * kept[:, None, None], pooled, features.lengths)

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
        """VAE space to the denoiser's space."""
        shift = self.vae.config.get("shift_factor") or 0.0
        scaled: Tensor = (latents - shift) * self.vae.config.scaling_factor
        return scaled

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents of the denoiser's space (B, C, h, w) to pixels (B, H, W, 3), uint8, on the CPU."""
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
        return self.previews != "whole" or "denoiser" in self.placement.parked

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Room for the VAE, made once for several pictures; `decode` makes it for itself otherwise."""
        give_back_memory()
        with ExitStack() as stack:
            if self.previews == "parked":
                stack.enter_context(self.placement.away("denoiser"))
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


def _joined(values: Sequence[Any]) -> Any:
    """Tensors joined by rows, within mappings too."""
    if isinstance(values[0], Mapping):
        return {key: _joined([value[key] for value in values]) for key in values[0]}
    return torch.cat(list(values)) if isinstance(values[0], Tensor) else values[0]


def _distance(difference: Tensor, mask: Tensor | None, huber: float | Tensor) -> Tensor:
    """The mean over each row's cells and channels, (B,)."""
    cells = difference.square()
    if isinstance(huber, Tensor):
        bend = huber.view(-1, 1, 1, 1)
        cells = torch.where(bend > 0, 2 * bend * ((cells + bend**2).sqrt() - bend), cells)
    elif huber:
        cells = 2 * huber * ((cells + huber**2).sqrt() - huber)
    if mask is None:
        return cells.mean(dim=(1, 2, 3))
    counting = mask.expand_as(cells).sum(dim=(1, 2, 3))
    return (cells * mask).sum(dim=(1, 2, 3)) / counting.clamp(min=1e-6)

"""The opponent: a plain diffusers + PEFT loop, written the way diffusers' text-to-image LoRA example works.

Images are opened and encoded, and captions tokenised and encoded, in every step; fp32; PEFT's layers; an unfused
optimizer; noise from the global generator. With ``cached=True`` latents and text embeddings are computed once, which
is what a careful user would add to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from torch import Tensor

from trainer.adapters.weights import LayerWeights
from trainer.bases.sources import BUNDLED_FOLDER
from trainer.data.cache import load_pixels
from trainer.data.dataset import Example
from trainer.data.decoder import Decoder

ATTN2 = r".*attn2\.(to_q|to_k|to_v|to_out\.0)"


class PlainLoop:
    """One training by diffusers and PEFT alone.

    Args:
        examples: what is trained on, already cut to the base's size by the same code as ours.
        rank, rate, steps, batch_size: as in our run; the rate falls along a cosine.
        cached: whether latents and text embeddings are computed once.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        rank: int,
        rate: float,
        steps: int,
        batch_size: int,
        cached: bool,
        folder: Path = BUNDLED_FOLDER,
        seed: int = 0,
    ) -> None:
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        torch.manual_seed(seed)
        self.examples, self.batch_size, self.cached = list(examples), batch_size, cached
        self.unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
        self.vae: Any = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32)
        self.text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        self.tokenizer: Any = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.noise: Any = DDPMScheduler.from_pretrained(folder / "scheduler")
        for model in (self.unet, self.vae, self.text):
            model.requires_grad_(False)
        self.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTN2))
        self.unet.train()
        self.parameters = [p for p in self.unet.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=1e-2)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        if cached:
            with torch.no_grad():
                self.means = [self._means([e]) for e in self.examples]
                self.hidden = [self._hidden([e.caption]) for e in self.examples]

    def step(self, index: int) -> float:
        """One optimizer step; returns the loss."""
        start = index * self.batch_size
        chosen = [(start + offset) % len(self.examples) for offset in range(self.batch_size)]
        with torch.no_grad():
            if self.cached:
                mean = torch.cat([self.means[i] for i in chosen])
                hidden = torch.cat([self.hidden[i] for i in chosen])
            else:
                picked = [self.examples[i] for i in chosen]
                mean = self._means(picked)
                hidden = self._hidden([e.caption for e in picked])
            # The bundled base was trained on the posterior's mean; drawing from it would only hurt this side.
            latents = mean * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self.noise.config.num_train_timesteps, (len(chosen),))
        noisy = self.noise.add_noise(latents, noise, timesteps)
        predicted = self.unet(noisy, timesteps, hidden, return_dict=False)[0]
        v_prediction = self.noise.config.prediction_type == "v_prediction"
        wanted = self.noise.get_velocity(latents, noise, timesteps) if v_prediction else noise
        loss = F.mse_loss(predicted.float(), wanted.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def weights(self) -> dict[str, LayerWeights]:
        """What it learned, as our bank loads it."""
        found: dict[str, LayerWeights] = {}
        for path, module in self.unet.named_modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
                found[f"unet.{path}"] = LayerWeights(
                    down.detach().clone(), up.detach().clone(), module.scaling["default"] * down.shape[0]
                )
        return found

    def _means(self, examples: Sequence[Example]) -> Tensor:
        with Decoder() as decoder:
            pixels = torch.stack([load_pixels(example, decoder) for example in examples])
        mean: Tensor = self.vae.encode(pixels).latent_dist.mode()
        return mean

    def _hidden(self, captions: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        hidden: Tensor = self.text(tokens.input_ids)[0]
        return hidden

"""The texts of the settings under *Advanced*, see `app.texts`.

In English they come from `trainer.config`, because the command line shows the same words; so a new setting appears
by itself, and `app.texts.missing` says which language does not have it yet.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainer.config import settings

ELSEWHERE = frozenset({"name", "trigger", "base.source", "data.images", "data.repeats", "data.focus", "train.preset"})
"""Settings that the Train tab asks for in the open, in texts of its own."""

NAMES = {
    "base.quantize": "Quantise",
    "base.clip_skip": "CLIP skip",
    "base.zero_terminal_snr": "Zero terminal SNR",
    "data.buckets": "Keep wide and tall shapes",
    "optim.find_rate": "Find the learning rate",
    "optim.max_grad_norm": "Largest gradient norm",
    "optim.min_snr_gamma": "Min-SNR gamma",
    "optim.ema_decay": "EMA decay",
    "optim.beta1": "Beta 1",
    "optim.beta2": "Beta 2",
    "samples.every": "Steps between pictures",
    "train.gpus": "Cards",
    "train.stop_when": "Stop early",
    "train.stop_floor": "Steps before that",
    "train.checkpoint_every": "Steps between checkpoints",
    "train.keep_checkpoints": "Checkpoints to keep",
}
"""Of settings that are called otherwise than the last part of their path."""


def in_english() -> Mapping[str, tuple[str, str]]:
    """Dotted setting -> its name and its help."""
    return {
        path: (NAMES.get(path) or path.rpartition(".")[2].replace("_", " ").capitalize(), setting.help)
        for path, setting in settings().items()
        if path not in ELSEWHERE
    }

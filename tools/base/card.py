"""The model card of a packed base: what it is, what it learnt from, how it was trained, what was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.base.diffusion import MADE_UP_SHARE
from tools.base.icon_sets import TRAINING_SETS, IconSet
from tools.base.measure import GUIDANCE, STEPS
from tools.base.model_folder import Model
from tools.base.subjects import KNOWN_SUBJECTS

NAMED = tuple(each.key for each in TRAINING_SETS if each.named)
ROWS = {
    "psnr_held_out_db": "Autoencoder, PSNR on held-out icons of the training sets (dB)",
    "right_caption_loss": "Fixed-noise loss, right caption (held-out icons)",
    "wrong_caption_loss": "Fixed-noise loss, wrong caption",
    "wrong_above_right_percent": "Wrong above right (%)",
    "colour_as_named_percent": "Pictures in the colour that the prompt names (20 prompts, 4 seeds; %)",
    "recognised_at_once_of_100": "Of 100 common subjects, recognised by the judge at its first guess",
    "recognised_of_100": "Of 100 common subjects, recognised by the judge (first five guesses)",
    "judge_classes": "Classes the judge knows",
    "judge_held_out_accuracy": "Share of held-out real icons the judge recognises (first five guesses)",
    "seconds_per_image": "Seconds per image on two CPU cores, 20 steps with guidance",
}


@dataclass(frozen=True)
class Record:
    """What the logs of a run say."""

    sentences: tuple[str, ...]
    """One for each training."""
    sets: tuple[IconSet, ...]
    """The icon sets that any of them used."""


def write_card(
    model: Model,
    run_folder: Path,
    out: Path,
    *,
    measurements: dict[str, Any],
    sheet: str | None = None,
    remarks: str = "",
) -> None:
    """Write ``README.md`` into a packed base; ``run_folder`` holds the logs of its training."""
    text = card(model, training_record(run_folder), measurements=measurements, sheet=sheet, remarks=remarks)
    (out / "README.md").write_text(text, encoding="utf-8")


def training_record(run_folder: Path) -> Record:
    """What the logs in a run's folder say of its trainings; of one that left no log, nothing."""
    sentences, sets = [], set[str]()
    for training in ("autoencoder", "decoder", "text-to-image"):
        path = run_folder / training / "log.jsonl"
        if not path.is_file():
            continue
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        begun: dict[str, Any] = next(line for line in lines if line.get("event") == "started")
        devices = sorted({line["device"] for line in lines if "device" in line})
        losses = [line["loss"] for line in lines if "loss" in line]
        remarks: dict[str, float] = {}
        for line in lines:
            if line.get("remark"):
                remarks.setdefault(line["remark"], line["seconds"] / 60)
        focus = "".join(f"from minute {since:.0f} on {remark}; " for remark, since in remarks.items())
        start = f", beginning from the weights of {begun['start']}" if begun["start"] else ""
        sentences.append(
            f"{training}: {lines[-1]['seconds'] / 60:.1f} minutes on {' and '.join(devices)}, "
            f"{lines[-1]['samples']:,} samples of {begun['images']:,} images in batches of "
            f"{begun['batch']}{start}; {focus}"
            f"last loss {losses[-1] if losses else 'not logged'}."
        )
        sets.update(begun["sets"])
    return Record(tuple(sentences), tuple(icon_set for icon_set in TRAINING_SETS if icon_set.key in sets))


def card(model: Model, record: Record, *, measurements: dict[str, Any], sheet: str | None, remarks: str = "") -> str:
    """The card's text. ``remarks``: paragraphs or sections that somebody who has looked at the pictures adds."""
    vae, unet, text = model.vae.config, model.unet.config, model.text_encoder.config
    pixels = vae.sample_size
    picture = [f"![{sheet}]({sheet})", ""] if sheet else []
    rows = [f"| {title} | {measurements[key]} |" for key, title in ROWS.items() if key in measurements]
    missed, pale = measurements.get("not_recognised"), measurements.get("colour_missed")
    lines = [
        "# Patina's base",
        "",
        f"A small text-to-image latent-diffusion model for icons on white, {pixels} x {pixels} pixels, in Stable "
        "Diffusion's folder layout: `StableDiffusionPipeline.from_pretrained` reads it without special code.",
        "",
        *picture,
        "| part | what |",
        "|---|---|",
        f"| autoencoder | AutoencoderKL, channels {_dashed(vae.block_out_channels)}, 4 latent channels, "
        f"{unet.sample_size} x {unet.sample_size} latents, {_millions(model.vae)} |",
        f"| text model | CLIPTextModel, width {text.hidden_size}, {text.num_hidden_layers} layers, "
        f"{text.vocab_size:,} tokens of its own, captions of at most {text.max_position_embeddings} tokens, "
        f"{_millions(model.text_encoder)} |",
        f"| UNet | UNet2DConditionModel, channels {_dashed(unet.block_out_channels)}, cross-attention at the upper "
        f"two levels, {_millions(model.unet)}, {_predicts(model)} |",
        f"| use | guidance {GUIDANCE:g}, {STEPS} DDIM steps |",
        "",
        "## Training",
        "",
        *(f"- {sentence}" for sentence in record.sentences),
        "- Text model and UNet jointly: AdamW, timesteps drawn by Min-SNR 5, cosine decay, average of the weights, 10% "
        "empty captions. Captions are the subjects' names, synonyms and plain colours, a third of them followed by a "
        f'style word, such as "red apple, {TRAINING_SETS[0].key} style"; {MADE_UP_SHARE:.0%} of all end with a '
        "made-up style instead, so that words which the base does not know leave its subjects alone. Drawings in a "
        f"look of Patina's own making, such as grey or outlined, and the sets {', '.join(NAMED)} are always called by "
        "their style.",
        "",
        "| icons | style word | licence |",
        "|---|---|---|",
        *(f"| {s.credit} (`{s.package}` {s.version}) | {s.key} style | {s.licence} |" for s in record.sets),
        "",
        "## Measurements",
        "",
        *(["| what | value |", "|---|---|", *rows] if rows else ["Not measured."]),
        *(["", f"Not recognised: {', '.join(missed)}."] if missed else []),
        *(["", f"Not always in the colour that the prompt names: {', '.join(pale)}."] if pale else []),
        "",
        *([remarks.strip(), ""] if remarks.strip() else []),
        "## What it knows",
        "",
        f"{len(KNOWN_SUBJECTS)} subjects, also in `subjects.json`: {', '.join(sorted(KNOWN_SUBJECTS))}.",
        "",
        "Anything else gives a picture too, of what is nearest to its words.",
        "",
        "## Limits",
        "",
        "It draws one subject on white, about as its icon sets draw it. It cannot write, count, or put two things "
        "into a relation. It knows a narrow world by heart rather than a wide one by hearsay.",
    ]
    return "\n".join(lines) + "\n"


def _predicts(model: Model) -> str:
    if model.prediction == "v_prediction":
        return "v prediction with zero terminal SNR, trailing timesteps"
    return "epsilon prediction"


def _dashed(values: Any) -> str:
    return "-".join(map(str, values))


def _millions(module: Any) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M parameters"

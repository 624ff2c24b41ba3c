"""The model card of the Hugging Face hub: its front matter in the hub's own words, and a page that a person reads."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.publishing.sidecar import description
from trainer.publishing.subject import Subject
from trainer.styles.words import is_embedding

LICENSES = (
    *("apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "unlicense"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
    *("gpl-3.0", "agpl-3.0", "lgpl-3.0", "bsd-3-clause", "wtfpl", "other", "unknown"),
)
"""Licences as the hub calls them; every other text becomes ``other`` with its name."""

_TAGS = {"sdxl": ("stable-diffusion-xl",), "sd1": ("stable-diffusion",), "sd2": ("stable-diffusion",)}
_FACTS = {
    "ss_steps": "Steps",
    "ss_num_train_images": "Images",
    "ss_total_batch_size": "Batch size",
    "ss_learning_rate": "Learning rate",
    "ss_resolution": "Resolution",
    "ss_network_dim": "Rank",
    "ss_network_alpha": "Alpha",
}


def card(subject: Subject, pictures: Sequence[tuple[str, str]], *, file: str, repo: str = "") -> str:
    """The text of ``README.md``.

    Args:
        pictures: path in the repository and prompt of each picture.
        file: name of the style's file.
        repo: the repository's id, for the snippet; empty loads from the folder that the card lies in.
    """
    from huggingface_hub import ModelCardData

    data = ModelCardData(**_front_matter(subject, pictures))
    return f"---\n{data.to_yaml(line_break=chr(10)).strip()}\n---\n\n{_body(subject, pictures, file, repo)}"


def license_of(text: str) -> dict[str, str]:
    """A licence in the hub's words; empty where none is given."""
    if not text.strip():
        return {}
    key = re.sub(r"[\s_]+", "-", text.strip().lower())
    if key in LICENSES:
        return {"license": key}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", key).strip("-") or "other"}


def _front_matter(subject: Subject, pictures: Sequence[tuple[str, str]]) -> dict[str, Any]:
    kind = ("textual_inversion",) if is_embedding(subject.header) else ("lora", "template:sd-lora")
    values: dict[str, Any] = {
        **license_of(subject.license),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", *kind, *_TAGS.get(subject.family, ()), "patina"],
    }
    if subject.base:
        values |= {"base_model": subject.base, "base_model_relation": "adapter"}
    if subject.trigger:
        values["instance_prompt"] = subject.trigger
    if pictures:
        # A hyphen stands for a picture whose prompt is not known.
        values["widget"] = [{"text": prompt or "-", "output": {"url": path}} for path, prompt in pictures]
    return values


def _body(subject: Subject, pictures: Sequence[tuple[str, str]], file: str, repo: str) -> str:
    parts = [f"# {_text(subject.name)}"]
    if pictures:
        parts.append("<Gallery />")
    parts.append(_text(description(subject)))
    if subject.trigger:
        parts.append(f"## Trigger words\n\nWrite {_code(subject.trigger)} in the prompt.")
    if subject.hint and not (subject.strength and subject.hint == f"Recommended strength {subject.strength:g}."):
        parts.append(_text(subject.hint))
    strength = subject.strength or 1.0
    if subject.strength:
        parts.append(f"Recommended strength: {strength:g}.")
    where = f"[{_text(file)}]({file}) opens in A1111, Forge, ComfyUI and InvokeAI: put it into their folder for"
    if subject.family in _TAGS and is_embedding(subject.header):
        word = Path(file).stem
        parts.append(
            f"## Use\n\n{where} embeddings, where {_code(word)} stands in prompts for {_code(subject.trigger)}. In "
            f"diffusers:\n\n{_word_snippet(subject, file, repo)}"
        )
    elif subject.family in _TAGS:
        parts.append(f"## Use\n\n{where} LoRA. In diffusers:\n\n{_snippet(subject, file, repo)}")
    else:
        parts.append(f"## Use\n\n{_own_snippet(subject, file)}")
    if rows := _facts(subject.header.metadata):
        parts.append("## Training\n\n| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows))
    parts.append("Made with Patina; `config.toml` holds the settings." if subject.config else "Published with Patina.")
    return "\n\n".join(parts) + "\n"


def _snippet(subject: Subject, file: str, repo: str) -> str:
    base = subject.base or "PATH OR ID OF THE BASE"
    prompt = ", ".join(part for part in ("a cat", subject.trigger) if part)
    return (
        "```python\n"
        "import torch\n"
        "from diffusers import AutoPipelineForText2Image\n\n"
        f"pipeline = AutoPipelineForText2Image.from_pretrained({base!r}, torch_dtype=torch.float16).to('cuda')\n"
        f"pipeline.load_lora_weights({repo or '.'!r}, weight_name={file!r}, adapter_name='style')\n"
        f"pipeline.set_adapters('style', {subject.strength or 1.0:g})\n"
        f"pipeline({prompt!r}).images[0].save('picture.png')\n"
        "```"
    )


def _word_snippet(subject: Subject, file: str, repo: str) -> str:
    """Loading an embedding, of SDXL one for each text encoder."""
    word = f"<{Path(file).stem}>"
    opened = (
        f"pipeline.load_textual_inversion({repo or '.'!r}, weight_name={file!r}, token={word!r})\n"
        if subject.header.has("emb_params")
        else f"vectors = load_file({file!r})\n"
        + "".join(
            f"pipeline.load_textual_inversion(vectors[{name!r}], token={word!r}, "
            f"text_encoder=pipeline.text_encoder{second}, tokenizer=pipeline.tokenizer{second})\n"
            for name, second in (("clip_l", ""), ("clip_g", "_2"))
        )
    )
    return (
        "```python\n"
        "import torch\n"
        "from diffusers import AutoPipelineForText2Image\n"
        + ("" if subject.header.has("emb_params") else "from safetensors.torch import load_file\n")
        + f"\npipeline = AutoPipelineForText2Image.from_pretrained({subject.base or 'PATH OR ID OF THE BASE'!r}, "
        "torch_dtype=torch.float16).to('cuda')\n"
        f"{opened}"
        f"pipeline({f'a cat, {word}'!r}).images[0].save('picture.png')\n"
        "```"
    )


def _own_snippet(subject: Subject, file: str) -> str:
    prompt = ", ".join(part for part in ("a cat", subject.trigger) if part).replace('"', "'")
    return f'```sh\npatina sample --adapter "{file}:{subject.strength or 1.0:g}" --prompt "{prompt}"\n```'


def _facts(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, _cell(metadata[key])) for key, name in _FACTS.items() if metadata.get(key, "None") != "None"]


def _text(value: str) -> str:
    """What somebody wrote, in Markdown and HTML no more than text."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(" ".join(value.split()), quote=False))


def _cell(value: str) -> str:
    return _text(value[:80])


def _code(value: str) -> str:
    return f"`{' '.join(value.split()).replace('`', chr(39))}`"

"""What each program looks for in a style file, as data: under which names, in which layers, and how it tells the base.

Read in the programs' public source: ComfyUI (``comfy/lora.py``, ``comfy/utils.py``), A1111's web UI
(``extensions-builtin/Lora``), Forge (``sd_forge_lora`` and its copy of ComfyUI's key maps), InvokeAI 6
(``model_manager/configs/lora.py``, ``patches/lora_conversions``), SwarmUI (``T2IModelClassSorter``, with ComfyUI
behind), sd-scripts (``networks/lora.py``, ``merge_lora.py``, ``sdxl_merge_lora.py``), stable-diffusion.cpp
(``name_conversion.cpp``, ``lora.hpp``), and diffusers, which is also asked itself. docs/files.md says how each rule was
checked. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from trainer.bases.families import SD1, SD2, SDXL, Family
from trainer.styles.consumers.tensors import FileTensors, shape_of
from trainer.styles.names import diffusers_stem, flatten, kohya_stem, text_path, to_original

KNOWN = frozenset({SD1.key, SD2.key, SDXL.key})
"""Families that other programs open bases of."""

_IN_BLOCKS = re.compile(
    r"unet\.(?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\."
    r"(?:attentions\.\d+\.(?:proj_in|proj_out|transformer_blocks\.\d+\.(?:attn[12]\.(?:to_[qkv]|to_out\.0)|ff\.net\.(?:0\.proj|2)))"
    r"|resnets\.\d+\.(?:conv1|conv2|conv_shortcut|time_emb_proj)|downsamplers\.0\.conv|upsamplers\.0\.conv)"
)
_OUTSIDE = re.compile(r"unet\.(?:conv_in|conv_out|time_embedding\.linear_[12]|add_embedding\.linear_[12])")
_EMBEDDING = re.compile(r"unet\.(?:time|add)_embedding\..*")
_TEXT = re.compile(r"te[12]?\.text_model\.encoder\.layers\.\d+\.(?:self_attn\.(?:[qkv]|out)_proj|mlp\.fc[12])")
_TEXT_ATTENTION = re.compile(r"(te[12]?\..*self_attn)\.([qkv]|out)_proj")

LEFT_OUT = "DoRA's lengths are left out"

Names = Callable[[str, Family], Iterator[str]]
"""A layer's root-qualified path and the family -> every name under which a program takes it."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program.

    Attributes:
        title: for people.
        names: see `Names`; a layer without one is left out.
        families: keys of the families that it opens bases of; None is all.
        refuses: why it does not open a file at all; None when it does.
        together: paths that are taken only when all of their group are there -> the group, or None.
        unmatched: most tensors without a place before it drops the whole file.
        whole: it fails where a single name has no place.
        exact_shapes: a convolution of one pixel is none to it that can stand for a linear layer.
        reads_header: it knows alpha where only the header says it.
        lengths: what becomes of DoRA's lengths of rows, in kohya's layout.
        columns: whether it reads lengths of columns, as they are meant.
    """

    title: str
    names: Names
    families: frozenset[str] | None = KNOWN
    refuses: Callable[[FileTensors, Family], str | None] = lambda tensors, family: None
    together: Callable[[str, Family], tuple[str, ...]] = lambda path, family: ()
    unmatched: int | None = None
    whole: bool = False
    exact_shapes: bool = False
    reads_header: bool = False
    lengths: str = LEFT_OUT
    columns: bool = False


def original_stem(path: str, family: Family) -> str | None:
    """kohya's spelling of a UNet layer under the name of Stability's original code; None where it has none."""
    root, _, inner = path.partition(".")
    name = to_original(inner) if root == "unet" else None
    if name is None:
        return None
    if not family.original_names and name == "output_blocks.2.2.conv":
        # In SD1 and SD2 the first block that goes up has no attention in front of its upsampler.
        name = "output_blocks.2.1.conv"
    return f"lora_unet_{flatten(name)}"


def is_inside(path: str) -> bool:
    """Whether a layer is in the UNet's blocks or one of the text encoders' usual ones."""
    return bool(_IN_BLOCKS.fullmatch(path) or _TEXT.fullmatch(path))


def _in_unet(path: str) -> bool:
    return bool(_IN_BLOCKS.fullmatch(path) or _OUTSIDE.fullmatch(path))


def _original(path: str, family: Family) -> Iterator[str]:
    if (stem := original_stem(path, family)) is not None:
        yield stem


def _comfy(path: str, family: Family) -> Iterator[str]:
    if _in_unet(path):
        yield kohya_stem(path)
        yield from _original(path, family)
        inner = to_original(path.removeprefix("unet."))
        if inner is not None:
            yield f"diffusion_model.{inner}"
        if ".to_" not in path:
            # Attention is looked up under the names of diffusers' old processors, which no file of today has.
            yield diffusers_stem(path)
    elif _TEXT.fullmatch(path):
        yield kohya_stem(path)
        yield diffusers_stem(path)
        if not path.startswith("te2."):
            other = "te1" if path.startswith("te.") else "te"
            yield kohya_stem(f"{other}.{path.partition('.')[2]}")
    elif path in ("te1.text_projection", "te2.text_projection"):
        yield kohya_stem(path)


def _web_ui(path: str, family: Family) -> Iterator[str]:
    if _in_unet(path):
        yield from _original(path, family)
        # Its own translation of diffusers' names is SD1's: it has no added embedding, and numbers one upsampler so.
        if not family.original_names or not re.match(r"unet\.(add_embedding|up_blocks\.0\.upsamplers)", path):
            yield kohya_stem(path)
    elif _TEXT.fullmatch(path):
        yield kohya_stem(path)


def _web_ui_together(path: str, family: Family) -> tuple[str, ...]:
    """OpenCLIP's attention is one module there, which is changed only as a whole."""
    fused = path.startswith("te2.") or (family.v2 and path.startswith("te."))
    match = _TEXT_ATTENTION.fullmatch(path) if fused else None
    return tuple(f"{match[1]}.{part}_proj" for part in ("q", "k", "v", "out")) if match else ()


def _invoke(path: str, family: Family) -> Iterator[str]:
    if _in_unet(path) or _TEXT.fullmatch(path):
        yield kohya_stem(path)
        if family.original_names:
            yield from _original(path, family)


_DEEP_TRANSFORMER = re.compile(
    r"lora_unet_(?:(?:down|up)_blocks_\d+_attentions_\d+|mid_block_attentions_\d+|(?:in|out)put_blocks_\d+_\d+|middle_block_\d+)"
    r"_transformer_blocks_(\d+)_.*"
)
_BY_WIDTH = {768: SD1, 1024: SD2, 1280: SDXL, 2048: SDXL}


def invoke_family(tensors: FileTensors) -> Family | None:
    """What InvokeAI takes a file's base for: by widths of text features, else by how deep the transformers are."""
    encoders: dict[str, int] = {}
    for stem, parts in tensors.parts.items():
        width = shape_of(parts, ("lora_down.weight",))
        if width is None:
            continue
        if stem.startswith("lora_unet_") and stem.endswith(("_attn2_to_k", "_attn2_to_v", "time_emb_proj")):
            return _BY_WIDTH.get(width[1])
        if stem.startswith("lora_te_") and "_self_attn_" in stem:
            return _BY_WIDTH.get(width[1])
        if stem.startswith(("lora_te1_", "lora_te2_")) and "_self_attn_" in stem:
            encoders[stem[:9]] = width[1]
            if len(encoders) == 2:
                return _BY_WIDTH.get(sum(encoders.values()))
    deep = (_DEEP_TRANSFORMER.fullmatch(stem) for stem in tensors.parts)
    return SDXL if any(match is not None and int(match[1]) >= 2 for match in deep) else None


def _invoke_refuses(tensors: FileTensors, family: Family) -> str | None:
    if not tensors.named("lora_"):
        return "files for Stable Diffusion in this layout are not read there"
    found = invoke_family(tensors)
    if found is None:
        return "a style's base is told by attn2.to_k, attn2.to_v or text encoders, of which this one adapts none"
    return None if found.key == family.key else f"the style is taken for one of {found.title}"


def _scripts(path: str, family: Family) -> Iterator[str]:
    if is_inside(path):
        yield kohya_stem(path)
        if family.original_names and path.startswith("unet."):
            yield from _original(path, family)


def _scripts_merging(path: str, family: Family) -> Iterator[str]:
    if is_inside(path):
        if family.original_names and path.startswith("unet."):
            yield from _original(path, family)
        else:
            yield kohya_stem(path)


def _cpp(path: str, family: Family) -> Iterator[str]:
    if is_inside(path):
        yield kohya_stem(path)
        if path.startswith("unet."):
            yield diffusers_stem(path)
    if _in_unet(path) and not _EMBEDDING.fullmatch(path):
        yield from _original(path, family)


def _cpp_together(path: str, family: Family) -> tuple[str, ...]:
    match = _TEXT_ATTENTION.fullmatch(path) if path.startswith("te2.") else None
    return tuple(f"{match[1]}.{part}_proj" for part in "qkv") if match and match[2] in "qkv" else ()


def _diffusers(path: str, family: Family) -> Iterator[str]:
    yield diffusers_stem(path)
    if not path.startswith("unet.add_embedding."):
        yield kohya_stem(path)
    if _in_unet(path):
        yield from _original(path, family)


_COLUMNS = "DoRA's lengths are taken for those of columns"
_BASE_ROWS = "rows are divided by their lengths in the base, which comes close to DoRA"

PROGRAMS: tuple[Program, ...] = (
    Program(
        title="A1111",
        names=_web_ui,
        together=_web_ui_together,
        lengths=_COLUMNS,
        columns=True,
    ),
    Program(title="Forge", names=_comfy, unmatched=12, lengths=_BASE_ROWS, columns=True),
    Program(title="ComfyUI", names=_comfy, lengths=_BASE_ROWS, columns=True),
    Program(title="SwarmUI", names=_comfy, lengths=_BASE_ROWS, columns=True),
    Program(title="InvokeAI", names=_invoke, refuses=_invoke_refuses, whole=True, lengths=_COLUMNS, columns=True),
    Program(title="diffusers", names=_diffusers, families=None, reads_header=True),
    Program(title="sd-scripts", names=_scripts, exact_shapes=True),
    Program(title="sd-scripts' merging", names=_scripts_merging),
    Program(title="stable-diffusion.cpp", names=_cpp, together=_cpp_together),
)


def web_ui_family(metadata: Mapping[str, str]) -> Family | None:
    """Whose styles A1111 lists a file among; with no metadata at all it lists it always."""
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return SDXL
    if metadata.get("ss_v2") == "True":
        return SD2
    return SD1 if metadata else None


def normal(paths: Iterable[str]) -> dict[str, str]:
    """Each path with ``text_model.`` where it belongs -> the path as given."""
    return {
        path if path.startswith("unet.") else f"{path.partition('.')[0]}.{text_path(path.partition('.')[2])}": path
        for path in paths
    }

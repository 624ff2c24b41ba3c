"""The layers of a UNet, told from its configuration alone: no torch, no weights.

Source: diffusers' UNet2DConditionModel and the blocks that Stable Diffusion 1, 2 and XL are made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Shape = tuple[int, ...]


def unet_layers(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Dotted path of every linear layer and convolution -> shape of its weight, (out, in) or (out, in, kh, kw).

    Args:
        config: of diffusers, as a UNet's ``config.json`` holds it.

    Raises:
        ValueError: it has blocks of a kind that these families do not have, or is damaged.
    """
    try:
        return dict(_layers(config))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"no UNet of Stable Diffusion: {error}") from None


def unet_layers_in(folder: Path) -> dict[str, Shape]:
    """The same from a folder with a ``config.json``.

    Raises:
        OSError, ValueError: there is none, or it says no such UNet.
    """
    return unet_layers(json.loads((folder / "config.json").read_bytes()))


def _layers(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    widths = [int(width) for width in config["block_out_channels"]]
    count, last = int(config.get("layers_per_block", 2)), len(widths) - 1
    depths = config.get("transformer_layers_per_block", 1)
    depths = depths if isinstance(depths, list | tuple) else [depths] * len(widths)
    text, linear = int(config["cross_attention_dim"]), bool(config.get("use_linear_projection"))
    first = widths[0]

    def attention(place: str, width: int, depth: int) -> Iterator[tuple[str, Shape]]:
        projection: Shape = (width, width) if linear else (width, width, 1, 1)
        yield from ((f"{place}.{name}", projection) for name in ("proj_in", "proj_out"))
        for number in range(depth):
            block = f"{place}.transformer_blocks.{number}"
            for name, read in (("attn1", width), ("attn2", text)):
                yield from ((f"{block}.{name}.{part}", (width, width)) for part in ("to_q", "to_out.0"))
                yield from ((f"{block}.{name}.{part}", (width, read)) for part in ("to_k", "to_v"))
            yield f"{block}.ff.net.0.proj", (8 * width, width)
            yield f"{block}.ff.net.2", (width, 4 * width)

    def resnet(place: str, wide: int, width: int) -> Iterator[tuple[str, Shape]]:
        yield f"{place}.conv1", (width, wide, 3, 3)
        yield f"{place}.time_emb_proj", (width, 4 * first)
        yield f"{place}.conv2", (width, width, 3, 3)
        if wide != width:
            yield f"{place}.conv_shortcut", (width, wide, 1, 1)

    yield "conv_in", (first, int(config.get("in_channels", 4)), 3, 3)
    yield "time_embedding.linear_1", (4 * first, first)
    yield "time_embedding.linear_2", (4 * first, 4 * first)
    if config.get("addition_embed_type") == "text_time":
        yield "add_embedding.linear_1", (4 * first, int(config["projection_class_embeddings_input_dim"]))
        yield "add_embedding.linear_2", (4 * first, 4 * first)
    for level, kind in enumerate(config["down_block_types"]):
        place, width = f"down_blocks.{level}", widths[level]
        for number in range(count):
            wide = width if number else widths[max(0, level - 1)]
            yield from resnet(f"{place}.resnets.{number}", wide, width)
            if _attends(kind, "Down"):
                yield from attention(f"{place}.attentions.{number}", width, depths[level])
        if level < last:
            yield f"{place}.downsamplers.0.conv", (width, width, 3, 3)
    for number in range(2):
        yield from resnet(f"mid_block.resnets.{number}", widths[last], widths[last])
    yield from attention("mid_block.attentions.0", widths[last], depths[last])
    for step, kind in enumerate(config["up_block_types"]):
        level = last - step
        place, width = f"up_blocks.{step}", widths[level]
        for number in range(count + 1):
            before = width if number else widths[min(last, level + 1)]
            skipped = width if number < count else widths[max(0, level - 1)]
            yield from resnet(f"{place}.resnets.{number}", before + skipped, width)
            if _attends(kind, "Up"):
                yield from attention(f"{place}.attentions.{number}", width, depths[level])
        if step < last:
            yield f"{place}.upsamplers.0.conv", (width, width, 3, 3)
    yield "conv_out", (int(config.get("out_channels", 4)), first, 3, 3)


def _attends(kind: str, side: str) -> bool:
    if kind not in (f"{side}Block2D", f"CrossAttn{side}Block2D"):
        raise ValueError(f"its block {kind!r} is of another kind")
    return kind.startswith("Cross")

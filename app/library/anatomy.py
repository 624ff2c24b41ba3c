"""What a style does to each layer, drawn: sizes of the updates, how many directions they take, and what two share.

Scalable drawings in the page's own colours, as the loss (`app.train.loss`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

from markupsafe import Markup

from app.html import Child, el
from app.texts import TEXTS
from trainer.studio.views import AnatomyView, LayerView, SharedDirections, StyleCard

WIDTH, HEIGHT = 640, 180
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 28
CELL, MAP = 12, 132
_BLOCK = re.compile(r"\w+\.(down_blocks\.\d+|mid_block|up_blocks\.\d+)")


def anatomy(card: StyleCard, found: AnatomyView | None) -> list[Child]:
    """The button that has a style looked into; once that is done, what was found."""
    words = TEXTS.library
    ask = el("div", el("button", words.look_inside_now, type="button", data_act="dissect"), class_="style-tool")
    if found is None or found.style != card.id:
        return [el("p", words.look_inside_help), ask]
    with_base = any(layer.share is not None for layer in found.layers)
    return [
        el("h4", words.sizes_of_layers if with_base else words.norms_of_layers),
        size_plot(found.layers),
        el("h4", words.directions_title.format(energy=f"{found.energy:.0%}")),
        direction_plot(found.layers),
        _hint(found),
        kinds(found.layers),
        None if with_base else el("p", words.no_base_here),
    ]


def size_plot(layers: Sequence[LayerView]) -> Markup:
    """A bar for each layer, in the model's order: its update relative to its weight, or as it is without the base."""
    words = TEXTS.library
    values = [(layer.norm if layer.share is None else layer.share) for layer in layers]
    most = max(values, default=0.0) or 1.0
    width = (WIDTH - LEFT - RIGHT) / max(1, len(layers))
    shown = [_percent(layer) for layer in layers]
    bars = [
        el(
            "rect",
            el("title", f"{layer.path}: {told}"),
            x=f"{LEFT + index * width:.1f}", y=f"{_height(value / most):.1f}",
            width=f"{max(0.5, width * 0.8):.2f}", height=f"{HEIGHT - BOTTOM - _height(value / most):.1f}",
        )
        for index, (layer, value, told) in enumerate(zip(layers, values, shown, strict=True))
    ]  # fmt: skip
    places = enumerate(_block(layer.path) for layer in layers)
    starts = [(name, next(group)[0]) for name, group in groupby(places, key=lambda place: place[1])]
    marks: list[Child] = []
    for name, start in starts:
        x = f"{LEFT + start * width:.1f}"
        marks.append(el("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        marks.append(el("text", name, x=x, y=HEIGHT - 8, class_="tick"))
    largest = max(range(len(layers)), key=values.__getitem__, default=0)
    summary = words.largest_update.format(layer=layers[largest].path, size=shown[largest]) if layers else ""
    top = f"{most:.1%}" if layers and layers[0].share is not None else f"{most:.3g}"
    axis = [el("text", top, x=LEFT - 6, y=TOP + 8, class_="tick end"), el("text", "0", x=LEFT - 6, y=HEIGHT - BOTTOM,
                                                                          class_="tick end")]  # fmt: skip
    return _figure(summary, [marks, el("g", bars, class_="bars"), axis])


def direction_plot(layers: Sequence[LayerView]) -> Markup:
    """The strength of the directions, strongest first, relative to the strongest: mean over layers, and their range."""
    words = TEXTS.library
    relative = [
        [size / layer.sizes[0] for size in layer.sizes] for layer in layers if layer.sizes and layer.sizes[0] > 0
    ]
    if not relative:
        return Markup("")
    count = max(map(len, relative))
    columns = [[row[index] for row in relative if index < len(row)] for index in range(count)]
    step = (WIDTH - LEFT - RIGHT) / max(1, count - 1)

    def line(values: Sequence[float]) -> str:
        return " ".join(f"{LEFT + index * step:.1f},{_height(value):.1f}" for index, value in enumerate(values))

    above, below = [max(column) for column in columns], [min(column) for column in columns]
    band = f"{line(above)} " + " ".join(reversed(line(below).split()))
    effective = [layer.effective for layer in layers]
    summary = words.directions_summary.format(mean=f"{fmean(effective):.1f}", most=max(effective))
    ticks = [
        el("text", str(index + 1), x=f"{LEFT + index * step:.1f}", y=HEIGHT - 8, class_="tick")
        for index in range(0, count, max(1, count // 8))
    ]
    return _figure(
        summary,
        [
            ticks,
            el("text", "1", x=LEFT - 6, y=TOP + 8, class_="tick end"),
            el("polygon", points=band, class_="range"),
            el("polyline", points=line([fmean(column) for column in columns]), class_="mean"),
        ],
    )


def kinds(layers: Sequence[LayerView]) -> Markup:
    """A row for each kind of layer: means over its layers."""
    words = TEXTS.library
    found: dict[str, list[LayerView]] = {}
    for layer in layers:
        found.setdefault(layer.kind, []).append(layer)
    with_base = any(layer.share is not None for layer in layers)
    titles = [words.kind_of_layer, words.how_many, words.effective_rank]
    titles += [words.size_beside_weight, words.turned_up] if with_base else [words.size_of_update]
    rows = []
    for kind, own in sorted(found.items()):
        cells = [str(len(own)), f"{fmean(layer.effective for layer in own):.1f} / {own[0].rank}"]
        if with_base:
            shares = [layer.share for layer in own if layer.share is not None]
            factors = [layer.factor for layer in own if layer.factor is not None]
            cells.append(f"{fmean(shares):.2%}" if shares else words.nothing)
            cells.append(f"{fmean(factors):.3g} \u00d7" if factors else words.nothing)
        else:
            cells.append(f"{fmean(layer.norm for layer in own):.3g}")
        rows.append(el("tr", el("th", kind, scope="row"), [el("td", cell) for cell in cells]))
    head = el("tr", [el("th", title, scope="col") for title in titles])
    return el("table", el("thead", head), el("tbody", rows), class_="style-differences")


def shared(found: Sequence[SharedDirections], names: tuple[str, str]) -> list[Child]:
    """A heat map for each kind of layer: the strongest directions of one style down, of the other across."""
    if not found:
        return []
    words = TEXTS.library
    maps = [el("div", el("h5", f"{each.kind} ({each.layers})"), heat_map(each)) for each in found]
    told = words.shared_help.format(first=names[0], second=names[1])
    return [el("h4", words.shared_title), el("p", told), el("div", maps, class_="style-maps")]


def heat_map(each: SharedDirections) -> Markup:
    """phi(i, j), light for nothing and dark for one subspace within the other."""
    rows, columns = len(each.similarity), len(each.similarity[0])
    cells = [
        el(
            "rect",
            el("title", f"{i + 1}, {j + 1}: {value:.2f}"),
            x=j * CELL, y=i * CELL, width=CELL, height=CELL, fill_opacity=f"{min(1.0, max(0.0, value)):.2f}",
        )
        for i, row in enumerate(each.similarity)
        for j, value in enumerate(row)
    ]  # fmt: skip
    summary = TEXTS.library.shared_summary.format(
        first=f"{each.similarity[0][0]:.2f}",
        chance=f"{each.by_chance:.2f}",
        whole=f"{each.similarity[-1][-1]:.2f}",
    )
    drawing = el(
        "svg", el("title", f"{each.kind}: {summary}"), cells, viewBox=f"0 0 {columns * CELL} {rows * CELL}", width=MAP,
        height=MAP, preserveAspectRatio="none", role="img", aria_label=f"{each.kind}: {summary}", class_="heat",
    )  # fmt: skip
    return el("figure", drawing, el("figcaption", summary), class_="anatomy")


def _hint(found: AnatomyView) -> Markup | None:
    """Where a lower rank would do, one click that makes it."""
    words = TEXTS.library
    if found.smaller is None:
        return el("p", words.rank_is_used.format(part=f"{1 - found.energy:.0%}"))
    said = words.smaller_would_do.format(rank=found.smaller, kept=f"{found.kept:.1%}")
    rank = el("input", type="hidden", name="rank", value=str(found.smaller))
    button = el("button", words.save_at_rank.format(rank=found.smaller), type="button", data_act="smaller")
    return el("div", el("p", said), rank, button, class_="style-tool", data_fields=True)


def _figure(summary: str, inside: Child) -> Markup:
    drawing = el(
        "svg", el("title", summary), inside, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=summary
    )  # fmt: skip
    return el("figure", drawing, el("figcaption", summary), class_="anatomy")


def _height(value: float) -> float:
    """Where a value from 0 to 1 lies on the drawing."""
    return TOP + (1 - min(1.0, max(0.0, value))) * (HEIGHT - TOP - BOTTOM)


def _percent(layer: LayerView) -> str:
    return f"{layer.norm:.3g}" if layer.share is None else f"{layer.share:.2%}"


def _block(path: str) -> str:
    """The block that a layer is in, in short: ``down 1``, ``mid``, ``up 0``."""
    match = _BLOCK.match(path)
    if match is None:
        return path.partition(".")[0]
    return match[1].replace("_blocks.", " ").replace("_block", "")

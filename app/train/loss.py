"""The loss as a drawing: the raw values thin, their running mean bold, held-out images dotted.

Scalable and in the page's own colours, so it needs no plotting library and looks right in light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.html import el
from app.texts import TEXTS
from trainer.events import Validated

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 28
MOST_POINTS = 400


def smooth(values: Sequence[float], window: float = 25.0) -> list[float]:
    """Exponential running mean over about ``window`` values, without its pull towards zero at the start."""
    keep = 1.0 - 1.0 / window
    total, weight, result = 0.0, 0.0, []
    for value in values:
        total = keep * total + (1.0 - keep) * value
        weight = keep * weight + (1.0 - keep)
        result.append(total / weight)
    return result


def loss_plot(steps: Sequence[int], losses: Sequence[float], validation: Sequence[Validated], last_step: int) -> Markup:
    """The drawing; empty before the second value.

    Args:
        steps, losses: raw values by step, same length.
        validation: loss on held-out images.
        last_step: right end of the axis.
    """
    if len(losses) < 2:
        return Markup("")
    bold = smooth(losses)
    stride = max(1, len(losses) // MOST_POINTS)
    raw = list(zip(steps, losses, strict=True))[::stride]
    mean = [*list(zip(steps, bold, strict=True))[::stride], (steps[-1], bold[-1])]
    held = [(point.step, point.loss) for point in validation]
    everything = sorted(value for _, value in [*raw, *held])
    # One wild value would flatten the rest, so the axis ends where all but the last hundredth do.
    low = min(everything[0], *(value for _, value in mean))
    high = max(
        everything[min(len(everything) - 1, int(len(everything) * 0.99))], *(value for _, value in [*mean, *held])
    )
    if high <= low:
        high = low + 1.0

    words = TEXTS.train
    summary = words.loss_summary.format(first=f"{bold[0]:.3f}", last=f"{bold[-1]:.3f}", step=steps[-1])
    return el(
        "figure",
        el(
            "svg",
            el("title", summary),
            _axes(low, high, last_step),
            el("polyline", points=_points(raw, low, high, last_step), class_="raw"),
            el("polyline", points=_points(mean, low, high, last_step), class_="mean"),
            el("polyline", points=_points(held, low, high, last_step), class_="held") if held else None,
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=summary,
        ),
        el(
            "figcaption",
            el("span", words.loss_smoothed, class_="key mean"),
            el("span", words.loss_raw, class_="key raw"),
            el("span", words.loss_held, class_="key held") if held else None,
            el("span", words.loss_axis, class_="axis"),
        ),
        class_="loss",
    )


def two_losses(curves: Sequence[tuple[str, Sequence[int], Sequence[float]]]) -> Markup:
    """The running means of two runs over each other; empty where one has no curve yet.

    Args:
        curves: name, steps and raw values of each.
    """
    if any(len(losses) < 2 for _, _, losses in curves):
        return Markup("")
    means = []
    for _, steps, losses in curves:
        stride = max(1, len(losses) // MOST_POINTS)
        means.append(list(zip(steps, smooth(losses), strict=True))[::stride])
    values = [value for mean in means for _, value in mean]
    low, high = min(values), max(values)
    if high <= low:
        high = low + 1.0
    last_step = max(steps[-1] for _, steps, _ in curves)
    words = TEXTS.train
    ends = TEXTS.frame.comma.join(
        words.loss_ends.format(name=name, last=f"{mean[-1][1]:.3f}", step=mean[-1][0])
        for (name, _, _), mean in zip(curves, means, strict=True)
    )
    return el(
        "figure",
        el(
            "svg",
            el("title", ends),
            _axes(low, high, last_step),
            [
                el("polyline", points=_points(mean, low, high, last_step), class_=f"mean {place}")
                for mean, place in zip(means, _PLACES, strict=True)
            ],
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=ends,
        ),
        el(
            "figcaption",
            [el("span", name, class_=f"key mean {place}") for (name, _, _), place in zip(curves, _PLACES, strict=True)],
            el("span", words.loss_axis, class_="axis"),
        ),
        class_="loss",
    )


_PLACES = ("first", "second")


def _axes(low: float, high: float, last_step: int) -> list[Markup]:
    """Lines and numbers of both axes."""
    found = []
    for tick in (low, (low + high) / 2, high):
        y = _y(tick, low, high)
        said = f"{tick:.2f}" if high - low > 0.1 else f"{tick:.4f}"
        found.append(el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}"))
        found.append(el("text", said, x=LEFT - 8, y=f"{y + 4:.1f}", text_anchor="end"))
    for step, anchor in ((0, "start"), (last_step // 2, "middle"), (last_step, "end")):
        found.append(el("text", str(step), x=f"{_x(step, last_step):.1f}", y=HEIGHT - 6, text_anchor=anchor))
    return found


def _points(series: Sequence[tuple[int, float]], low: float, high: float, last_step: int) -> str:
    return " ".join(f"{_x(step, last_step):.1f},{_y(min(value, high), low, high):.1f}" for step, value in series)


def _x(step: int, last_step: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, last_step)


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value - low) / (high - low))

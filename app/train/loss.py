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

    def points(series: Sequence[tuple[int, float]]) -> str:
        return " ".join(f"{_x(step, last_step):.1f},{_y(min(value, high), low, high):.1f}" for step, value in series)

    words = TEXTS.train
    summary = words.loss_summary.format(first=f"{bold[0]:.3f}", last=f"{bold[-1]:.3f}", step=steps[-1])
    ticks = [low, (low + high) / 2, high]
    return el(
        "figure",
        el(
            "svg",
            el("title", summary),
            [
                [
                    el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{_y(t, low, high):.1f}", y2=f"{_y(t, low, high):.1f}"),
                    el(
                        "text",
                        f"{t:.2f}" if high - low > 0.1 else f"{t:.4f}",
                        x=LEFT - 8,
                        y=f"{_y(t, low, high) + 4:.1f}",
                        text_anchor="end",
                    ),
                ]
                for t in ticks
            ],
            [
                el("text", str(step), x=f"{_x(step, last_step):.1f}", y=HEIGHT - 6, text_anchor=anchor)
                for step, anchor in ((0, "start"), (last_step // 2, "middle"), (last_step, "end"))
            ],
            el("polyline", points=points(raw), class_="raw"),
            el("polyline", points=points(mean), class_="mean"),
            el("polyline", points=points(held), class_="held") if held else None,
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


def _x(step: int, last_step: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, last_step)


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value - low) / (high - low))

"""What the Library tab shows, from the studio's plain values: cards as JSON, an opened style as HTML."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from app.files import download_url, picture_url
from app.html import text
from app.texts import TEXTS
from app.train.loss import loss_plot
from app.units import duration, size
from trainer.bases.families import FAMILIES, title_of
from trainer.studio.views import RunView, SampleView, StyleCard, StyleView

WORDS = TEXTS.library


def cards(found: Sequence[StyleCard], opened: str, *, filtered: bool) -> dict[str, Any]:
    """The value of the grid; ``filtered`` tells an empty library from a search that found nothing."""
    return {
        "items": [
            {
                "id": card.id,
                "name": card.name,
                "trigger": card.trigger,
                "facts": card_facts(card),
                "urls": [picture_url(path, 240) for path in card.thumbnails],
            }
            for card in found
        ],
        "open": opened,
        "message": WORDS.no_match if filtered else WORDS.empty,
    }


def card_facts(card: StyleCard) -> str:
    """Base, rank, size and date in one line."""
    parts = [base_title(card)] if base_title(card) else []
    if card.rank is not None:
        parts.append(WORDS.rank.format(rank=card.rank))
    return " \u00b7 ".join([*parts, size(card.size_bytes), day(card.created)])


def base_title(card: StyleCard) -> str:
    """The base for people: the family's title for the bundled one, else its own name."""
    family = FAMILIES.get(card.family)
    if family is not None and card.base in ("", "bundled", card.family):
        return family.title
    return card.base.rstrip("/").rsplit("/", 1)[-1]


def day(when: float) -> str:
    """A date without the time."""
    return time.strftime("%Y-%m-%d", time.localtime(when))


def families(found: Iterable[StyleCard]) -> list[tuple[str, str]]:
    """(title, key) for the filter: only families that the library holds."""
    keys = sorted({card.family for card in found if card.family})
    return [(title_of(key), key) for key in keys]


def downloads(card: StyleCard) -> str:
    """The two links that answer with the file under the style's name."""
    first = text(download_url(card.id, "kohya"))
    second = text(download_url(card.id, "diffusers"))
    return (
        f'<p class="style-downloads"><a class="main" href="{first}" download title="{text(WORDS.download_help)}">'
        f"{text(WORDS.download)} ({text(size(card.size_bytes))})</a>"
        f'<a href="{second}" download>{text(WORDS.download_diffusers)}</a></p>'
    )


def about(style: StyleView) -> str:
    """An opened style: picture, facts, samples, checkpoints, and what its file says."""
    parts = [_facts(style)]
    if style.run is not None:
        parts += [_sheet(style.card, style.run), _learning(style.run), _samples(style.run)]
    elif style.card.thumbnails:
        images = "".join(_image(picture_url(path, 480), style.card.name) for path in style.card.thumbnails)
        parts.insert(0, f'<div class="style-pictures">{images}</div>')
    parts.append(_metadata(style))
    return "".join(parts)


def _facts(style: StyleView) -> str:
    card, run = style.card, style.run
    rows = [(WORDS.trigger, card.trigger), (WORDS.base, base_title(card))]
    rows.append((WORDS.rank_label, "" if card.rank is None else str(card.rank)))
    rows += [(WORDS.size, size(card.size_bytes)), (WORDS.layout, WORDS.layouts[card.layout])]
    rows.append((WORDS.made, time.strftime("%Y-%m-%d %H:%M", time.localtime(card.created))))
    rows.append((WORDS.origin, WORDS.trained_here if card.origin == "trained" else WORDS.imported_from))
    if run is not None:
        rows.append((WORDS.steps, str(run.step)))
        rows.append((WORDS.duration, duration(run.seconds) if run.seconds else ""))
    shown = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows if value)
    return f'<dl class="style-facts">{shown}</dl>{_verified(run)}'


def _verified(run: RunView | None) -> str:
    if run is None or not run.verified:
        return ""
    ticks = "".join(f"<li>{text(line)}</li>" for line in run.verified)
    return f'<h3>{text(WORDS.verified)}</h3><ul class="style-ticks">{ticks}</ul>'


def _sheet(card: StyleCard, run: RunView) -> str:
    if run.sheet is None:
        return ""
    url = text(picture_url(run.sheet))
    image = f'<img src="{url}" alt="{text(WORDS.sheet_alt.format(name=card.name))}" loading="lazy">'
    return f'<h3>{text(WORDS.sheet)}</h3><a class="style-sheet" href="{url}" target="_blank" rel="noopener">{image}</a>'


def _learning(run: RunView) -> str:
    plot = loss_plot(run.loss_steps, run.losses, run.validation, max(run.steps, run.step))
    return f"<h3>{text(WORDS.learning)}</h3>{plot}" if plot else ""


def _samples(run: RunView) -> str:
    """A strip for each prompt, oldest to newest, and under a step that is still saved a way to try it."""
    if not run.samples:
        return _checkpoints(run, set())
    kept = {point.step for point in run.checkpoints}
    strips: list[str] = []
    for prompt, samples in by_prompt(run.samples).items():
        pictures = "".join(
            f"<li>{_image(picture_url(sample.path, 240), WORDS.sample_alt.format(prompt=prompt, step=sample.step))}"
            f"{_under(sample.step, sample.step in kept and not strips)}</li>"
            for sample in samples
        )
        strips.append(f'<h4>{text(prompt)}</h4><ol class="style-strip">{pictures}</ol>')
    seen = {sample.step for sample in run.samples}
    return f"<h3>{text(WORDS.samples)}</h3>{''.join(strips)}{_checkpoints(run, seen)}"


def by_prompt(samples: Iterable[SampleView]) -> dict[str, list[SampleView]]:
    """Samples of each prompt in order of steps."""
    found: dict[str, list[SampleView]] = {}
    for sample in sorted(samples, key=lambda sample: (sample.index, sample.step)):
        found.setdefault(sample.prompt, []).append(sample)
    return found


def _under(step: int, kept: bool) -> str:
    label = text(WORDS.at_step.format(step=step))
    if not kept:
        return f"<span>{label}</span>"
    title = text(WORDS.try_checkpoint.format(step=step))
    return f'<button type="button" data-step="{step}" title="{title}" aria-label="{title}">{label}</button>'


def _checkpoints(run: RunView, shown: set[int]) -> str:
    """Checkpoints that no sample stands for."""
    others = [point.step for point in run.checkpoints if point.step not in shown]
    if not others:
        return ""
    buttons = "".join(f"<li>{_under(step, True)}</li>" for step in sorted(others))
    return f'<h3>{text(WORDS.checkpoints)}</h3><ul class="style-checkpoints">{buttons}</ul>'


def _metadata(style: StyleView) -> str:
    if not style.metadata:
        inside = f"<p>{text(WORDS.no_metadata)}</p>"
    else:
        rows = "".join(
            f"<dt>{text(key)}</dt><dd>{text(_short(value))}</dd>"
            for key, value in sorted(style.metadata.items())
            if not value.startswith("data:")
        )
        inside = f'<dl class="style-metadata">{rows}</dl>'
    return f"<details><summary>{text(WORDS.metadata)}</summary>{inside}</details>"


def _short(value: str, most: int = 600) -> str:
    return value if len(value) <= most else f"{value[:most]} ..."


def _image(url: str, alt: str) -> str:
    return f'<img src="{text(url)}" alt="{text(alt)}" loading="lazy">'

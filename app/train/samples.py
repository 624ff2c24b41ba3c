"""The first screen: the styles that come along, each with its images, and what it does to a picture of the base."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from app.html import el
from app.scripts import ADDRESS, STATIC, TYPES
from app.texts import TEXTS
from app.units import duration
from trainer.data.folder import list_images
from trainer.studio.drafts import sample_sets
from trainer.studio.views import SampleSet

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from trainer.studio.views import PlanView

SHOWN = 8
PICTURES = "patina/samples"


def welcome(samples: list[SampleSet], plan: Callable[[SampleSet], PlanView]) -> Markup:
    """What a visitor without images sees first.

    Args:
        plan: what a sample set would do on this machine.
    """
    words = TEXTS.train
    return el(
        "div",
        el("h3", words.welcome),
        el("p", words.welcome_text),
        tour(),
        el("ul", [_offer(sample, plan(sample)) for sample in samples], class_="offers"),
        class_="welcome",
    )


def tour() -> Markup:
    """What one does in the studio from images to a file, folded; on the first screen and among the settings."""
    words = TEXTS.train
    steps = el("ol", [el("li", step) for step in words.tour])
    return el("details", el("summary", words.tour_title), steps, class_="tour", data_keep="tour")


def _offer(sample: SampleSet, plan: PlanView) -> Markup:
    words = TEXTS.train
    time = duration(plan.seconds) if plan.seconds is not None else ""
    return el(
        "li",
        el("h4", sample.title),
        el(
            "div",
            el("ol", [_thumb(sample, path) for path in pictures(sample)[:SHOWN]], class_="set", aria_hidden="true"),
            _pair(sample),
            class_="show",
        ),
        el("p", words.try_set_hint.format(count=sample.images, steps=plan.steps), class_="help"),
        el(
            "div",
            el(
                "button",
                words.try_set.format(title=sample.title),
                type="button",
                class_="offer",
                data_act="samples-train",
                data_item=sample.name,
                data_tell=words.starting,
            ),
            el("span", words.plan_time.format(time=time), class_="time") if time else None,
            el(
                "button",
                words.look_at_set,
                el("span", f": {sample.title}", class_="unseen"),
                type="button",
                class_="link",
                data_act="samples",
                data_item=sample.name,
                data_tell=words.reading,
            ),
            class_="actions",
        ),
    )


def _thumb(sample: SampleSet, path: Path) -> Markup:
    return el("li", el("img", src=f"{PICTURES}/{sample.name}/{path.name}", alt="", loading="lazy"))


def _pair(sample: SampleSet) -> Markup | None:
    words = TEXTS.train
    if not (STATIC / "pairs" / f"{sample.name}.webp").is_file():
        return None

    def side(name: str, said: str) -> Markup:
        return el(
            "figure",
            el("img", src=f"{ADDRESS}/pairs/{name}.webp", alt=words.pair_alt.format(which=said)),
            el("figcaption", said),
        )

    return el("div", side("base", words.sample_base), side(sample.name, words.sample_after), class_="pair")


@functools.cache
def pictures(sample: SampleSet) -> list[Path]:
    """The set's images."""
    return list_images(sample.folder)[0]


def route() -> BaseRoute:
    """Serves the sets' images; for the application that serves the page. They hold nothing of a user."""
    from starlette.responses import FileResponse, PlainTextResponse
    from starlette.routing import Route

    async def picture(request: Request) -> Response:
        asked = request.path_params
        sample = next((each for each in sample_sets() if each.name == asked["set"]), None)
        path = next((each for each in pictures(sample) if each.name == asked["name"]), None) if sample else None
        if path is None or path.suffix not in TYPES:
            return PlainTextResponse("There is no such picture.", status_code=404)
        return FileResponse(path, media_type=TYPES[path.suffix], headers={"Cache-Control": "max-age=3600"})

    return Route(f"/{PICTURES}/{{set}}/{{name}}", picture)

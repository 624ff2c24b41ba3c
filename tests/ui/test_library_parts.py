"""What the Library tab shows of a style; nothing that a name or a file says becomes markup."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.library.page import Listeners, Looking
from app.library.tools import ShareForm
from app.library.view import alpha_form, base_title, by_prompt, card_facts, families, opened, shelf
from trainer.errors import ConfigError
from trainer.events import Sampled, Saved
from trainer.publishing.parcel import Choices
from trainer.studio.sharing import PackedView
from trainer.studio.store import State, Wish
from trainer.studio.views import AnatomyView, ComparedView, LayerView, RunView, SharedDirections, StyleCard, StyleView
from trainer.styles.alpha import Alpha

HOSTILE = "<img src=x onerror=alert(1)> ${alert(1)} {{x}} \"'`"
CARD = StyleCard(
    id="run-1",
    name="Ink",
    trigger="ink style",
    origin="trained",
    base="bundled",
    family="bundled",
    rank=8,
    size_bytes=300_000,
    created=1_790_000_000.0,
    file=Path("/home/runs/run-1/adapter.safetensors"),
    layout="kohya",
    thumbnails=(Path("/home/runs/run-1/samples/000100-0.png"),),
)


def sample(step: int, index: int, prompt: str = "a cat") -> Sampled:
    return Sampled(step=step, index=index, prompt=prompt, path=f"samples/{step:06d}-{index}.png")


def run(**changes: object) -> RunView:
    plain = RunView(
        id="run-1",
        name="Ink",
        trigger="ink style",
        state=State.FINISHED,
        wish=Wish.NONE,
        version=(0.0, 0),
        settings={},
        step=200,
        steps=200,
        phase=None,
        loss_steps=(1, 2, 3),
        losses=(0.5, 0.4, 0.3),
        learning_rate=None,
        validation=(),
        samples=(sample(100, 0), sample(200, 0)),
        checkpoints=(),
        samples_per_second=None,
        seconds_left=None,
        plan=None,
        notices=(),
        adapter=None,
        sheet=Path("/home/runs/run-1/sheet.png"),
        verified=("28 of 28 layers",),
        seconds=61.0,
        error="",
        queue_place=None,
        created=0.0,
        folder=Path("/home/runs/run-1"),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def elements(html: str) -> set[str]:
    return set(re.findall(r"<\s*([a-z0-9]+)", html))


def test_nothing_a_file_says_becomes_markup() -> None:
    card = replace(CARD, name=HOSTILE, trigger=HOSTILE, base=HOSTILE, family="")
    hostile = StyleView(
        card, {HOSTILE: HOSTILE}, {}, run(samples=(sample(1, 0, HOSTILE),), verified=(HOSTILE,), opens=(HOSTILE,))
    )
    plain = StyleView(CARD, {"key": "value"}, {}, run(samples=(sample(1, 0),), opens=("Opens in diffusers.",)))
    assert elements(opened(hostile)) == elements(opened(plain))
    assert "onerror=alert(1)>" not in opened(hostile) + shelf([card], filtered=False)


def test_an_opened_style_tells_its_story() -> None:
    page = opened(StyleView(CARD, {}, {}, run(checkpoints=(Saved(step=200, path="x"), Saved(step=150, path="y")))))
    assert "28 of 28 layers" in page
    assert page.count("no other program knows its base") == 2, "of either layout of a style of the small base"
    other = opened(StyleView(replace(CARD, family="sd1"), {}, {}, run()))
    assert "no other program knows its base" not in other
    assert "Opens in A1111, Forge, ComfyUI" in other
    assert "polyline" in page, "the loss curve"
    assert page.count('data-step="200"') == 1, "a sample whose checkpoint is kept can be tried"
    assert page.count('data-step="150"') == 1, "and so can a checkpoint without samples"
    assert 'data-step="100"' not in page


def test_an_imported_style_needs_no_run() -> None:
    page = opened(StyleView(replace(CARD, origin="imported", rank=None), {}, {}, None))
    assert "imported" in page
    assert "<figure" not in page


def test_pictures_in_the_metadata_are_left_out_and_long_values_are_cut() -> None:
    page = opened(StyleView(CARD, {"thumbnail": "data:image/jpeg;base64,AAAA", "long": "x" * 5000}, {}, None))
    assert "base64" not in page
    assert "x" * 601 not in page


@pytest.mark.parametrize(
    ("base", "family", "title"),
    [
        ("bundled", "bundled", "Bundled icons"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "sd1", "stable-diffusion-v1-5"),
        ("", "sd1", "Stable Diffusion 1"),
        ("somebody's model", "", "somebody's model"),
    ],
)
def test_the_base_has_a_name_for_people(base: str, family: str, title: str) -> None:
    assert base_title(replace(CARD, base=base, family=family)) == title


def test_an_alpha_that_a_file_does_not_say_is_asked_for_and_the_answer_taken_in() -> None:
    taken: list[tuple[Path, Alpha]] = []

    def add(file: Path, name: str, alpha: Alpha) -> str:
        taken.append((file, alpha))
        return "style-1"

    studio = SimpleNamespace(library=SimpleNamespace(add=add, view=lambda style: StyleView(CARD, {}, {}, None)))
    asking = Listeners(SimpleNamespace(studio=studio), *[None] * 5)  # type: ignore[arg-type]
    looking = Looking(waiting="/tmp/ink.safetensors")
    with pytest.raises(ConfigError, match="Alpha is 'many', but should be"):
        asking.answered(looking, {"alpha": "many"}, rank=False)
    assert looking.waiting
    asking.answered(looking, {"alpha": "16", "counts": "root"}, rank=False)
    assert (looking.waiting, looking.style) == ("", "style-1")
    looking.waiting = "/tmp/ink.safetensors"
    asking.answered(looking, {"alpha": "", "counts": "plain"}, rank=True)
    assert [alpha for _, alpha in taken] == [Alpha(16.0, by_root=True), Alpha()]


def test_the_form_for_alpha_names_the_file_as_text_and_has_its_fields() -> None:
    form = str(alpha_form(HOSTILE))
    assert "<img" not in form
    for part in ('name="alpha"', 'name="counts"', 'data-act="alpha"', 'data-act="alpha-rank"', "data-fields"):
        assert part in form


def test_a_style_says_what_was_told_of_its_alpha() -> None:
    told = opened(StyleView(CARD, Alpha(16.0, by_root=True).to_metadata(), {}, None))
    assert "16 (rsLoRA), told at import" in told
    assert "told at import" not in opened(StyleView(CARD, {"patina.alpha": "{}"}, {}, None))


def test_what_was_left_out_of_an_imported_file_is_said_where_it_is_open() -> None:
    left = "It also changes 3 normalisation layers or lone biases, by at most 1; <b>"
    page = opened(StyleView(replace(CARD, origin="imported"), {}, {"notes": [left]}, None))
    assert "3 normalisation layers" in page
    assert "<b>" not in page


def test_an_empty_library_and_a_vain_search_say_different_things() -> None:
    assert shelf([], filtered=False) != shelf([], filtered=True)
    assert 'data-id="run-1"' in shelf([CARD], filtered=False)
    assert card_facts(CARD).split(" \u00b7 ")[:3] == ["Bundled icons", "rank 8", "0.3 MB"]


def test_the_filter_offers_the_families_that_are_there() -> None:
    other = replace(CARD, family="sdxl")
    offered = str(families([CARD, other, CARD], "sdxl"))
    assert re.findall(r'data-family="(.*?)"', offered) == ["", "bundled", "sdxl"]
    assert offered.index("Stable Diffusion XL") > offered.index('aria-pressed="true"')
    assert families([CARD, CARD], "") is None, "with one family there is nothing to choose"


def test_samples_stand_in_strips_from_oldest_to_newest() -> None:
    found = by_prompt([sample(200, 1, "b"), sample(100, 1, "b"), sample(100, 0, "a")])
    assert list(found) == ["a", "b"]
    assert [one.step for one in found["b"]] == [100, 200]


def test_a_style_can_be_made_smaller_or_merged_with_one_for_the_same_base() -> None:
    partner, stranger = replace(CARD, id="run-2", name="Wash"), replace(CARD, id="run-3", name="Big", family="sdxl")
    page = opened(StyleView(CARD, {}, {}, None), [CARD, partner, stranger])
    assert re.findall(r'<option value="(run-\d)"', page) == ["run-2", "run-2"], "to merge and to compare with"
    ranks = [re.findall(r'value="(\d*)"', each) for each in re.findall(r'<select name="rank">(.*?)</select>', page)]
    assert ranks == [["1", "2", "4"], ["", "4", "8", "16", "32", "64", "128"]]
    assert re.findall(r'<option value="([a-z]+)"', page.split('name="keep"')[1].split("</select>")[0]) == [
        "cross",
        "self",
    ]
    alone = opened(StyleView(replace(CARD, rank=1), {}, {}, None), [CARD])
    assert 'data-act="smaller"' not in alone, "a rank of one is the least"
    assert 'data-act="merge"' not in alone


def test_what_differs_between_two_styles_is_shown_side_by_side() -> None:
    partner = replace(CARD, id="run-2", name="Wash")
    found = ComparedView(
        styles=("run-1", "run-2"), names=("Ink", "Wash"), norms=(1.5, 0.25), angle=math.pi / 3, shared=28, alone=(0, 4),
        settings={"trigger": (None, HOSTILE)}, notes=("A note.",),
    )  # fmt: skip
    style = StyleView(CARD, {}, {}, None)
    page = opened(style, [CARD, partner], None, found)
    assert "60 degrees" in page
    assert "1.5 and 0.25" in page
    assert "A note." in page
    assert "onerror=alert(1)>" not in page
    other = replace(found, styles=("run-3", "run-2"))
    assert "60 degrees" not in opened(style, [CARD, partner], None, other), "it is said of the styles it was found for"


def layer(path: str, **changes: object) -> LayerView:
    plain = LayerView(path, "attn2.to_q", 4, 2.0, (2.0, 0.1), 1, 0.031, 12.5)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_what_is_inside_a_style_is_drawn_and_one_click_makes_the_smaller_copy() -> None:
    style = StyleView(CARD, {}, {}, None)
    assert 'data-act="dissect"' in opened(style)
    layers = (
        layer("unet.down_blocks.1.a"),
        layer("unet.mid_block.b", share=0.002),
        layer(f"unet.up_blocks.0.{HOSTILE}"),
    )
    found = AnatomyView("run-1", layers, 2, 0.995, 0.99)
    page = opened(style, looked_into=found)
    assert page.count("<rect") == 3
    assert "down 1" in page
    assert "up 0" in page
    assert "Largest in unet.down_blocks.1.a: 3.10%." in page
    assert "Rank 2 would do: it keeps 99.5% of the update." in page
    assert re.search(r'name="rank" value="2" />.*data-act="smaller"', page, re.DOTALL)
    assert "12.5 \u00d7" in page
    assert "onerror=alert(1)>" not in page
    alone = AnatomyView("run-1", (layer("te.x", share=None, factor=None, sizes=(), norm=0.0),), None, 1.0, 0.99)
    page = opened(style, looked_into=alone)
    assert "Every lower rank would leave out more than 1%" in page
    assert "told without its weights" in page
    assert "Largest in" not in opened(style, looked_into=replace(found, style="run-3")), (
        "it is said of the style it is of"
    )


def test_what_two_styles_share_is_drawn_cell_by_cell() -> None:
    partner = replace(CARD, id="run-2", name="Wash")
    shared = SharedDirections("attn2.to_k", 16, ((0.5, 0.25, 1.0), (0.125, 1.5, -0.1)), 0.0625)
    found = ComparedView(
        styles=("run-1", "run-2"), names=("Ink", "Wash"), norms=(1.5, 0.25), angle=1.0, shared=28, alone=(0, 4),
        settings={}, shared_directions=(shared,),
    )  # fmt: skip
    page = opened(StyleView(CARD, {}, {}, None), [CARD, partner], None, found)
    assert re.findall(r'fill-opacity="([^"]+)"', page) == ["0.50", "0.25", "1.00", "0.12", "1.00", "0.00"]
    assert 'viewBox="0 0 36 24"' in page
    assert "0.50 of the strongest of each (by chance 0.06)" in page


def test_what_would_be_sent_is_shown_before_it_can_be_sent() -> None:
    style = StyleView(CARD, {}, {}, None)
    assert 'data-act="push"' not in opened(style)
    packed = PackedView("run-1", {"Ink.safetensors": 300_000, HOSTILE: 1}, ("No licence is named.", HOSTILE))
    page = opened(style, (), ShareForm(packed, Choices(license="mit"), sent="https://hub/me/ink"))
    assert "Ink.safetensors" in page
    assert "No licence is named." in page
    assert 'data-act="push"' in page
    assert "data-ask" in page
    assert 'href="patina/share/run-1"' in page
    assert "onerror=alert(1)>" not in page
    assert 'data-act="push"' not in opened(style, (), ShareForm(replace(packed, style="run-2")))


def test_a_name_and_tags_are_those_of_the_style_they_were_entered_for_whatever_is_open_meanwhile() -> None:
    written: list[tuple[str, object]] = []
    library = SimpleNamespace(
        rename=lambda style, name: written.append((style, name)),
        set_tags=lambda style, tags: written.append((style, tags)),
    )
    listeners = Listeners(SimpleNamespace(studio=SimpleNamespace(library=library)), *[None] * 5)  # type: ignore[arg-type]
    fields = [("name", "Ink on paper"), ("tags", "line, black")]
    entries = [
        {"number": number, "set": name, "image": "run-1", "value": value}
        for number, (name, value) in enumerate(fields, start=1)
    ]
    # What a click on "close" carries, and then the fields' own requests.
    for _ in range(2):
        assert listeners.entered.take({"act": "close", "entered": {"page": "page", "entries": entries}}) == ""
    assert written == [("run-1", "Ink on paper"), ("run-1", ["line", " black"])]


def test_the_forms_reach_the_library_as_they_were_filled_in() -> None:
    asked: list[object] = []
    workshop = SimpleNamespace(
        smaller=lambda style, rank: asked.append((style, rank)) or "style-2",
        merged=lambda parts, rank: asked.append((parts, rank)) or "style-3",
    )
    library = SimpleNamespace(view=lambda style: StyleView(replace(CARD, name=style), {}, {}, None))
    sharing = SimpleNamespace(
        pack=lambda style, choices: asked.append(choices) or PackedView(style, {}, ()),
        push=lambda style, choices, private: asked.append((choices.repo, private)) or "https://hub/me/ink",
    )
    studio = SimpleNamespace(library=library, workshop=workshop, sharing=sharing)
    listeners = Listeners(SimpleNamespace(studio=studio), *[None] * 5)  # type: ignore[arg-type]
    looking = Looking(style="run-1")
    listeners.rework(looking, "smaller", {"rank": "4"})
    assert (looking.style, looking.note) == ("style-2", "style-2 is in the library.")
    listeners.rework(looking, "merge", {"other": "run-9", "strength": "0.5", "other_strength": "-1", "rank": ""})
    with pytest.raises(ConfigError, match="'strong', but should be a number"):
        listeners.rework(looking, "merge", {"other": "run-9", "strength": "strong", "other_strength": "1"})
    listeners.share(looking, "push", {"repo": "me/ink"})
    assert asked == [("run-1", 4), ([("style-2", 0.5), ("run-9", -1.0)], None)], "nothing is sent that was not shown"
    listeners.share(looking, "pack", {"private": "keep", "license": " mit ", "base": ""})
    listeners.share(looking, "push", {"repo": " me/ink", "hidden": "private"})
    assert asked[2:] == [Choices(keep_private=True, license="mit"), ("me/ink", True)]
    assert looking.share.sent == "https://hub/me/ink"

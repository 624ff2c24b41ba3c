"""The frame's parts by themselves: markup, panels, forms, controls, drawings, addresses and files."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from app import api, texts
from app.files import allowed, picture_url
from app.html import el, join
from app.launch import Address, find_address
from app.refresh import Panels, Shown, render, told
from app.texts import TEXTS
from app.texts.settings import ELSEWHERE
from app.theme import STATIC, css, head
from app.train.dials import DIALS, POSITIONS, at, preset_values
from app.train.loss import loss_plot, smooth
from app.train.settings import advanced, form_fields
from app.units import duration, of_total, size
from trainer.bases.families import FAMILIES
from trainer.config import RunConfig, parse, settings
from trainer.errors import ConfigError, StudioError
from trainer.events import Validated

NASTY = """<img src=x onerror=alert(1)> "quoted" 'single' & ${alert(1)} {{constructor}}"""


class Elements(HTMLParser):
    """Lists the elements of some HTML with their attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(str(source))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data

    def having(self, attribute: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.found if attribute in attributes]


# ---- markup and panels


def test_text_never_becomes_an_element_or_leaves_its_attribute() -> None:
    page = Elements(el("p", NASTY, el("b", "bold"), title=NASTY))
    assert page.found == [("p", {"title": NASTY}), ("b", {})]
    assert page.said == NASTY + "bold"


def test_attributes_that_are_none_or_false_are_left_out_and_true_stands_alone() -> None:
    made = el("input", type="text", class_="a", data_act="go", hidden=False, disabled=True, title=None)
    assert made == '<input type="text" class="a" data-act="go" disabled />'


def test_children_may_be_nested_numbers_and_nothing() -> None:
    assert join(["a", None, [1, [el("b", 2.5)]]]) == "a1<b>2.5</b>"


def test_a_panel_is_sent_only_to_a_page_that_shows_another_version() -> None:
    first, second = render("one", "text"), render("two", "text")
    version = Elements(first).found[0][1]["data-version"]
    page = Shown.parse(json.dumps({"run": "run-1", "panels": {"one": version, "two": "old"}}))
    assert page.run == "run-1"
    panels = Panels()
    panels.place("one")
    two = panels.place("two")
    assert panels.updates(page, {"one": first, "two": second}) == {two: second}


def test_a_panel_s_version_follows_its_content() -> None:
    assert render("one", "a") == render("one", "a") != render("one", "b")


@pytest.mark.parametrize("sent", ["", "[]", "null", '{"run": 1}', '{"run": "a", "panels": 3}', "{"])
def test_a_page_that_says_nonsense_shows_nothing(sent: str) -> None:
    assert Shown.parse(sent) == Shown()


# ---- errors


def test_a_user_s_error_becomes_an_answer_and_another_one_does_not() -> None:
    def mendable() -> None:
        raise StudioError("Do this instead.")

    def broken() -> None:
        raise ZeroDivisionError

    assert told(mendable, sentence=str.upper)() == "DO THIS INSTEAD."
    with pytest.raises(ZeroDivisionError):
        told(broken)()


# ---- settings


def test_every_setting_is_on_the_page_with_its_help() -> None:
    page = Elements(advanced({}, {}))
    shown = {attributes["data-set"] for attributes in page.having("data-set")}
    assert shown | ELSEWHERE == set(settings())
    assert not shown & ELSEWHERE
    for path, setting in settings().items():
        if path not in ELSEWHERE:
            assert setting.help in page.said


def test_every_field_has_a_label_and_a_description() -> None:
    page = Elements(advanced({}, {}))
    labels = {attributes["for"] for attributes in page.having("for")}
    ids = {attributes["id"] for attributes in page.having("id")}
    for attributes in page.having("data-set"):
        assert attributes["id"] in labels
        assert attributes["aria-describedby"] in ids


def test_what_a_form_shows_reads_back_as_the_same_settings() -> None:
    config = RunConfig(
        name="A",
        optim={"learning_rate": 1e-4, "beta2": 0.99},  # type: ignore[arg-type]
        samples={"prompts": ["a cat", "a dog"]},  # type: ignore[arg-type]
        data={"flip": True},  # type: ignore[arg-type]
    )
    kept = config.model_dump(exclude_none=True)
    page = Elements(advanced(kept, {}))
    areas = iter(re.findall(r"<textarea[^>]*>(.*?)</textarea>", str(advanced(kept, {})), re.DOTALL))
    chosen = iter(re.findall(r"<option value=\"([^\"]*)\" selected>", str(advanced(kept, {}))))
    read: dict[str, Any] = {}
    for entry in form_fields():
        tag, attributes = next((t, a) for t, a in page.found if a.get("data-set") == entry.path)
        if tag == "select":
            raw: object = next(chosen)
        elif tag == "textarea":
            raw = next(areas)
        elif attributes.get("type") == "checkbox":
            raw = "checked" in attributes
        else:
            raw = attributes["value"]
        read[entry.path] = entry.read(raw)
    for entry in form_fields():
        # Nothing entered means the default.
        value = entry.default if read[entry.path] is None else read[entry.path]
        assert value == at(config.model_dump(), entry.path), entry.path


def test_what_is_left_to_the_preset_is_shown_as_a_hint() -> None:
    page = Elements(advanced({}, {"adapter.rank": 8}))
    rank = next(attributes for attributes in page.having("data-set") if attributes["data-set"] == "adapter.rank")
    assert rank["value"] == ""
    assert rank["placeholder"] == TEXTS.train.chosen_for_you.format(value=8)


@pytest.mark.parametrize(
    ("path", "entered", "value"),
    [
        ("train.steps", " 120 ", 120),
        ("train.steps", "", None),
        ("train.steps", "many", "many"),
        ("optim.learning_rate", "1e-4", 1e-4),
        ("optim.learning_rate", "0,5", 0.5),
        ("samples.prompts", "a cat\n\n a dog ", ["a cat", "a dog"]),
        ("judging.strengths", "0.5\n1,25\nhigh", [0.5, 1.25, "high"]),
        ("data.flip", True, True),
    ],
)
def test_what_a_user_enters_is_read(path: str, entered: object, value: object) -> None:
    entry = next(entry for entry in form_fields() if entry.path == path)
    assert entry.read(entered) == value


@pytest.mark.parametrize("family", FAMILIES)
def test_the_middle_of_every_dial_is_the_preset(family: str) -> None:
    preset = preset_values(FAMILIES[family].presets["balanced"], images=16)
    for dial in DIALS:
        assert dial.value(preset[dial.setting], 0) is None
        assert dial.position(preset[dial.setting], None) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_position_of_a_dial_is_an_allowed_setting_and_is_found_again(family: str) -> None:
    preset = preset_values(FAMILIES[family].presets["thorough"], images=30)
    for dial in DIALS:
        values = [dial.value(preset[dial.setting], position) or preset[dial.setting] for position in POSITIONS]
        assert values == sorted(values)
        assert len(set(values)) == len(values)
        for position in POSITIONS:
            value = dial.value(preset[dial.setting], position)
            assert dial.position(preset[dial.setting], value) == position
            section, leaf = dial.setting.split(".")
            if value is not None:
                assert at(parse({"name": "x", section: {leaf: value}}).model_dump(), dial.setting) == value


# ---- drawings and words


def test_the_running_mean_starts_at_the_first_value_and_follows() -> None:
    assert smooth([2.0]) == [2.0]
    assert smooth([1.0] * 40) == pytest.approx([1.0] * 40)
    assert smooth([0.0] * 5 + [1.0] * 300)[-1] == pytest.approx(1.0, abs=0.01)


def test_the_loss_is_drawn_raw_smoothed_and_held_out() -> None:
    steps = list(range(1, 2001))
    drawn = loss_plot(steps, [1.0 / step for step in steps], [Validated(step=100, loss=0.5, base_loss=0.6)], 4000)
    lines = {a["class"]: str(a["points"]).split() for t, a in Elements(drawn).found if t == "polyline"}
    assert set(lines) == {"raw", "mean", "held"}
    assert len(lines["raw"]) <= 500
    places = [tuple(map(float, point.split(","))) for line in lines.values() for point in line]
    assert all(0 <= x <= 640 and 0 <= y <= 220 for x, y in places)


def test_one_value_is_no_curve() -> None:
    assert loss_plot([1], [0.5], [], 100) == ""


def test_a_visitor_is_spoken_to_in_a_language_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zh.toml").write_text(
        'name = "中文"\n[frame.tabs]\ntrain = "训练"\n[train.phases]\nloading = "正在加载"\n', encoding="utf-8"
    )
    monkeypatch.setattr("app.texts.FOLDER", tmp_path)
    for cached in (texts.languages, texts.texts):
        cached.cache_clear()
    try:
        assert texts.languages() == {"en": "English", "zh": "中文"}
        assert texts.wanted("", "zh-CN,zh;q=0.9,en;q=0.8") == "zh"
        assert texts.wanted("", "de, en;q=0.5, zh;q=0.4") == "en"
        assert texts.wanted("en", "zh") == "en"
        assert texts.wanted("xx", "zh;q=nonsense, *") == "en"
        with texts.speaking("zh"):
            assert TEXTS.frame.tabs["train"] == "训练"
            assert TEXTS.train.phases["loading"] == "正在加载"
            # What a language does not say stays English.
            assert TEXTS.train.phases["training"] == "Training"
        assert TEXTS.frame.tabs["train"] == "Train"
        assert "train.phases.training" in texts.missing("zh")
        assert "frame.tabs.train" not in texts.missing("zh")
    finally:
        for cached in (texts.languages, texts.texts):
            cached.cache_clear()


def test_a_text_that_is_unknown_or_lost_a_value_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zh.toml").write_text(
        'name = "中文"\n[frame]\nmemory_of = "{used}"\nmoon = "x"\nrun_chip = "{percent} {name}"\n', encoding="utf-8"
    )
    monkeypatch.setattr("app.texts.FOLDER", tmp_path)
    assert texts.unlike("zh") == ["frame.memory_of", "frame.moon"]


@pytest.mark.parametrize("code", [code for code in texts.languages() if code != texts.ENGLISH])
def test_a_language_is_whole(code: str) -> None:
    assert texts.missing(code) == []
    assert texts.unlike(code) == []


def test_numbers_carry_units() -> None:
    assert [duration(value) for value in (3.4, 300, 4500)] == ["3 s", "5 min", "1 h 15 min"]
    assert [size(value) for value in (2000, 300_000, 5 * 2**30)] == ["2 KB", "0.3 MB", "5.0 GB"]
    assert of_total(600 * 2**20, 24 * 2**30) == "0.6 of 24.0 GB"


def test_nothing_of_the_page_names_another_host() -> None:
    scripts = [path.read_text(encoding="utf-8") for path in STATIC.rglob("*") if path.suffix in (".js", ".css")]
    for source in (*scripts, css(), head()):
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", re.sub(r"http://www\.w3\.org/\d+/svg", "", source))


def test_what_moves_for_long_moves_in_steps() -> None:
    """Each frame of an animation is painted by the processor where there is no graphics card for it."""
    moving = [line for line in css().splitlines() if re.search(r"animation:.*infinite", line)]
    assert moving
    assert all("steps(" in line for line in moving)


# ---- orders of pictures


def test_an_order_without_styles_asks_the_base() -> None:
    order = api.ordered("a cat", seed=3, settings={"steps": 5})
    assert order.styles == ()
    assert [(row.prompt, row.seed, row.strengths) for row in order.rows] == [("a cat", 3, ())]
    assert order.settings.steps == 5


def test_an_order_makes_one_picture_for_each_entry_of_strengths() -> None:
    order = api.ordered("a cat", ["one", {"style": "two", "step": 20}], [[0, 1], [0.5, 0.5]])
    assert [use.step for use in order.styles] == [0, 20]
    assert [row.strengths for row in order.rows] == [(0.0, 1.0), (0.5, 0.5)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"styles": ["a"], "strengths": [[1, 2]]}, "2 values to a picture of 1 styles"),
        ({"styles": ["a"], "strengths": ["strong"]}, "should hold numbers"),
        ({"styles": ["a"], "strengths": [0.5] * 65}, "65 pictures"),
        ({"settings": {"steps": 0}}, "steps"),
        ({"settings": {"speed": 1}}, "speed"),
        ({"styles": [{"id": "a"}]}, "style"),
    ],
)
def test_a_wrong_order_is_a_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        api.ordered("a cat", **arguments)


# ---- addresses and files


def test_a_port_that_is_asked_for_and_taken_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StudioError, match=f"Port {port} is taken"):
            find_address(port=port)


def test_without_a_port_the_next_free_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("app.launch.FIRST_PORT", port)
        assert find_address().port > port


def test_a_host_that_is_none_of_this_machine_s_is_a_sentence() -> None:
    with pytest.raises(StudioError, match="no address of this machine"):
        find_address("192.0.2.1", 7999)


def test_an_address_says_what_to_type() -> None:
    assert Address("0.0.0.0", 80).url == "http://127.0.0.1:80"
    assert not Address("0.0.0.0", 80).is_local
    assert Address("::1", 80).url == "http://[::1]:80"


@pytest.mark.parametrize(
    ("inside", "shown"),
    [
        ("runs/run-1/images/a.png", True),
        ("runs/run-1/samples/b.png", True),
        ("previews/job-1/00.png", True),
        ("runs/run-1/config.png", True),
        ("runs/run-1/checkpoints/x.png", False),
        ("runs/run-1/config.toml", False),
        ("studio.sqlite3", False),
        ("uploads/abc/evil.png", False),
        ("runs/../uploads/abc/evil.png", False),
        ("../outside.png", False),
        ("runs/run-1/images/none.png", False),
        ("runs/run-1/images/link.png", False),
    ],
)
def test_only_the_studio_s_own_pictures_are_served(tmp_path: Path, inside: str, shown: bool) -> None:
    home = tmp_path / "home"
    for name in (
        "runs/run-1/images/a.png", "runs/run-1/samples/b.png", "previews/job-1/00.png", "runs/run-1/config.png",
        "runs/run-1/checkpoints/x.png", "runs/run-1/config.toml", "studio.sqlite3", "uploads/abc/evil.png",
    ):  # fmt: skip
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"x")
    (tmp_path / "outside.png").write_bytes(b"x")
    (home / "runs/run-1/images/link.png").symlink_to(tmp_path / "outside.png")
    assert (allowed(home, inside) is not None) == shown


def test_a_picture_s_address_changes_with_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "run-1" / "images" / "a b.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    before = picture_url(path, 320)
    assert before.startswith("patina/pictures/runs/run-1/images/a%20b.png?v=")
    assert before.endswith("&w=320")
    import os

    os.utime(path, (1, 1))
    assert picture_url(path, 320) != before


@pytest.mark.model
def test_the_page_is_built_without_torch() -> None:
    code = (
        "import sys\n"
        "import app.__main__, app.page, app.launch, trainer.studio.studio, app.api\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'peft', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--auth", "anna:secret"], "--auth takes a name alone"),
        (["--auth", "anna", "--auth-file", "x"], "give one of them"),
        (["--auth-file", "/no/such/file"], "cannot be read"),
        (["--host", "0.0.0.0"], "Ask for a login"),
        (["--host", "no.such.host.invalid"], "is not known"),
    ],
)
def test_a_wrong_argument_is_a_sentence_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.__main__ import main

    assert main(arguments) == 2
    assert said in capsys.readouterr().err

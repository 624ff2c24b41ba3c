"""The studio in Chinese: every text is there, keeps its places, and nothing of a panel is left in English."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from app import header, texts
from app.html import Child, join
from app.library import view as library
from app.preview import view as preview
from app.preview.form import Form, Mix, MixRow
from app.preview.sheet import Axis, sheet_order, title_of
from app.texts import TEXTS, Texts
from app.theme import theme
from app.train import captions, draft, monitor, pictures, runs, setup, writer
from app.train.dials import preset_values
from trainer.bases.describe import BaseInfo
from trainer.bases.families import FAMILIES
from trainer.bases.tokens import TokenCount
from trainer.captioning.writers import Writer
from trainer.config.schedulers import SCHEDULERS
from trainer.errors import ConfigError
from trainer.events import Phase, Planned, Sampled, Saved
from trainer.findings import Finding
from trainer.judging.judgement import Judged, Judgement
from trainer.printable import cpu_name
from trainer.studio.captioning import CaptioningView, Stage
from trainer.studio.store import State, Wish
from trainer.studio.views import (
    DraftView,
    ImageView,
    MachineView,
    PlanView,
    RunSummary,
    RunView,
    StyleCard,
    StyleView,
)

HAN = "[\u4e00-\u9fff]"
SAME_IN_CHINESE = {
    "frame.title", "settings.hub", "train.settings.adapter.alpha.0", "train.settings.optim.beta1.0",
    "train.settings.optim.beta2.0",
    "train.settings.optim.epsilon.0", "train.settings.optim.min_snr_gamma.0", "preview.mixer.trigger",
    "preview.prompt_placeholder", "preview.style_at", "preview.axis_examples.schedulers", "library.layouts.kohya",
    "library.layouts.diffusers", "library.alpha",
}  # fmt: skip
"""Names, and a prompt, which the base reads in English."""


@pytest.fixture
def chinese() -> Iterator[None]:
    with texts.speaking("zh"):
        yield


def flat(value: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a language with its id."""
    if isinstance(value, str):
        yield before.rstrip("."), value
        return
    if is_dataclass(value) and not isinstance(value, type):
        parts: Mapping[Any, Any] = {entry.name: getattr(value, entry.name) for entry in fields(value)}
    else:
        parts = value if isinstance(value, Mapping) else dict(enumerate(value))
    for name, inner in parts.items():
        yield from flat(inner, f"{before}{name}.")


ENGLISH = dict(flat(Texts()))
CHINESE = dict(flat(texts.texts("zh")))


# ---- the texts


def test_chinese_is_offered_beside_english_and_has_every_text() -> None:
    assert texts.languages()["zh"] == "中文"
    assert texts.missing("zh") == []
    assert texts.unlike("zh") == []
    # One and many, name and help: what stands in a row in English does so in Chinese.
    assert CHINESE.keys() == ENGLISH.keys()


def test_no_text_is_left_in_english() -> None:
    left = {key for key, said in CHINESE.items() if said == ENGLISH[key] and re.search("[A-Za-z]", said)}
    assert left == SAME_IN_CHINESE


def test_chinese_has_its_own_punctuation_and_stands_apart_from_other_letters() -> None:
    for key, said in CHINESE.items():
        assert not re.search(f"{HAN}[,.:;!?()]|[,.:;!?()]{HAN}", said), key
        assert not re.search(f"{HAN}[A-Za-z0-9]|[A-Za-z0-9]{HAN}", said), key
        assert not re.search(r"\s[，。：；？（）“”]|[，。：；？（）“”]\s", said), key


def test_help_names_the_same_choices_of_a_setting() -> None:
    for path, (_, said) in Texts().train.settings.items():
        for choice in re.findall(r"(?<!\w)'([^']+)'(?!\w)", said):
            assert f"“{choice}”" in texts.texts("zh").train.settings[path][1], (path, choice)


# ---- what is drawn with them

IMAGE = ImageView(
    id="1", name="甲", path=Path("/x/runs/r/images/1.png"), width=600, height=400, caption="", crop=(100, 0, 500, 400),
    bucket=(128, 128), findings=(Finding("甲", "rotated", "note", "横", "竖"),),
)  # fmt: skip
CHINESE_CAPTION = ImageView(
    id="2", name="乙", path=Path("/x/runs/r/images/2.png"), width=400, height=400, caption="红心",
    crop=(0, 0, 400, 400), bucket=(128, 128), findings=(Finding("乙", "near_duplicate", "warning", "近", "留"),),
)  # fmt: skip
DRAFT = DraftView("r", "墨", {"trigger": "墨"}, (IMAGE, CHINESE_CAPTION) * 3, (IMAGE, CHINESE_CAPTION), ())
PLAN = PlanView(
    images=6, steps=400, rank=8, learning_rate=1e-3, batch_size=4, resolution=128, seconds=45.0,
    memory_bytes=2**30, memory_available_bytes=24 * 2**30, file_bytes=200_000, source="measured", problem="",
    notes=(), choices={},
)  # fmt: skip
PLANNED = Planned(
    images=6, held_out=0, steps=400, batch_size=4, resolution=128, rank=8, learning_rate=1e-3, trainable_parameters=1,
    layers=1, file_bytes=1, seconds=45.0, memory_bytes=1, memory_available_bytes=1, device="cpu", base="bundled",
)  # fmt: skip
SAMPLES = tuple(
    Sampled(step=step, index=index, prompt="红心", path=f"samples/{step}-{index}.png")
    for step in (0, 100, 200)
    for index in (0, 1)
)
JUDGEMENT = Judgement(
    candidates=tuple(
        Judged(
            step=step, strength=1.0, style=0.6, subject=0.9, nearness=1.0, drift=0.1, variety=1.0,
            pictures=f"judging/{step}.png",
        )
        for step in (100, 200)
    ),
    step=100, strength=1.0, confidence=0.9, sentence="好",
)  # fmt: skip


def run(state: State, **changes: Any) -> RunView:
    values: dict[str, Any] = {
        "id": "r", "name": "墨", "trigger": "墨", "state": state, "wish": Wish.NONE, "version": (0.0, 0),
        "settings": {}, "step": 20, "steps": 80, "phase": None, "loss_steps": (1, 2), "losses": (0.5, 0.4),
        "learning_rate": 1e-3, "validation": (), "samples": SAMPLES, "checkpoints": (), "samples_per_second": 12.0,
        "seconds_left": 4500.0, "plan": PLANNED, "notices": (), "adapter": None, "sheet": None,
        "verified": ("same picture: 0",), "seconds": 45.0, "error": "", "queue_place": None,
        "created": 0.0, "folder": Path("/x/runs/r"),
    }  # fmt: skip
    return RunView(**{**values, **changes})


def summary(state: State, **changes: Any) -> RunSummary:
    values: dict[str, Any] = {
        "id": state.value, "name": "", "trigger": "", "state": state, "wish": Wish.NONE, "step": 20, "steps": 80,
        "queue_place": None, "created": 0.0, "updated": 0.0, "thumbnail": None, "message": "",
    }  # fmt: skip
    return RunSummary(**{**values, **changes})


CARD = StyleCard(
    id="r", name="墨", trigger="墨", origin="trained", base="墨", family="sd15", rank=8, size_bytes=300_000,
    created=0.0, file=Path("/x/runs/r/adapter.safetensors"), layout="kohya", thumbnails=(), strength=0.75,
)  # fmt: skip
FORM = Form("红心", Mix((MixRow("r", "墨", 0.5, steps=(100, 200)), MixRow("s", "纸"))))


def words(*page: Child) -> set[str]:
    """Words in Latin letters that a person is told by some HTML, in its text or in an attribute."""
    source = re.sub(r"<option[^>]*>[^<]*</option>", "", str(join(page)))
    spoken = "(?:aria-label|aria-valuetext|title|placeholder|alt|data-tell|data-ask|data-sending|data-reading)"
    said = " ".join([*re.findall(spoken + '="([^"]*)"', source), re.sub(r"<[^>]*>", " ", source)])
    return set(re.findall(r"[A-Za-z]{2,}", re.sub(r"{\w+}", "", html.unescape(said))))


UNITS = {"MB", "GB", "KB", "px"}


@pytest.mark.parametrize("state", State)
def test_a_run_is_told_in_chinese_in_every_state(state: State, chinese: None) -> None:
    phase = Phase(name="caching", done=3, total=16) if state is State.TRAINING else None
    shown = run(state, phase=phase, judgement=JUDGEMENT if state is State.FINISHED else None, queue_place=2)
    page = [
        monitor.progress(shown, next_up=False),
        monitor.live(shown),
        pictures.pictures(shown),
        monitor.losses(shown),
    ]
    assert words(*page) <= UNITS | {"cpu", "diffusers", "same", "picture"}
    assert words(runs.runs([summary(state, queue_place=2 if state is State.QUEUED else None)], "")) == set()


@pytest.mark.parametrize("wish", Wish)
def test_what_a_run_does_next_is_said_in_chinese(wish: Wish, chinese: None) -> None:
    page = monitor.progress(run(State.TRAINING, wish=wish), next_up=False)
    assert words(page) == {"cpu"}
    assert "第 20 / 80 步，12.0 张/秒" in page
    assert ("剩余 1 小时 15 分" in page) == (wish is not Wish.STOP)


def test_a_draft_is_told_in_chinese(chinese: None) -> None:
    page = draft.images(DRAFT, None, (2, 6))
    assert "6 张图片：3 张已转正，3 张近似重复。" in page
    assert words(page) <= {"PNG", "JPEG", "HEIC", "WebP", "GIF", "BMP", "TIFF", "cat", "mask", "png"}
    told = join([captions.captions(DRAFT, {"1": TokenCount((0,), 225, 75), "2": TokenCount((75, 75, 90), 225, 75)})])
    assert "6 张图片中有 3 张没有标注。" in told
    assert words(told) == {"token", "Hugging", "Face"}
    for stage in get_args(Stage):
        view = CaptioningView(stage, 2, 6, 1, unsaid=1, message="Captions are being written already.")
        assert words(writer.progress(view)) <= UNITS, stage
    assert words(writer.question(Writer("", None), "blip", "short", anew=True)) == {"Hugging", "Face"} | {"KB"}
    bundled = BaseInfo("bundled", family="bundled", title="Bundled icons", resolution=128)
    assert "自带图标模型：128 px" in str(draft.base(DRAFT, bundled)).partition('class="found"')[2]
    found = BaseInfo("x", family="sd15", title="墨", resolution=512, size_bytes=2**31)
    assert words(draft.base(DRAFT, found)) <= UNITS | {
        "Hugging", "Face", "Stable", "Diffusion", "XL", "safetensors", "owner", "name", "SD",
    }  # fmt: skip


def test_the_settings_are_told_in_chinese(chinese: None) -> None:
    preset = preset_values(FAMILIES["bundled"].presets["balanced"], images=16)
    page = setup.setup(DRAFT, PLAN, preset, busy=True)
    assert "400 步，约 45 秒，内存或显存 1.0 / 24.0 GB，文件 0.2 MB" in page
    assert words(page) <= UNITS | {"ink", "style"}
    every = str(setup.advanced(DRAFT, replace(PLAN, cards=2)))
    labels = re.findall(r"<label[^>]*>([^<]*)</label>", every)
    assert len(labels) == len(TEXTS.train.settings)
    assert not [help_text for help_text in re.findall(r'class="help">([^<]*)<', every) if not re.search(HAN, help_text)]


def test_the_header_offers_both_languages_and_says_which_one_is_spoken(chinese: None) -> None:
    page = header.chips(MachineView("cpu", "CPU, 2 cores", 2**30, 2**34, "idle"), ())
    assert re.findall(r'<option value="(\w+)"( selected)?>([^<]*)</option>', str(page)) == [
        ("en", "", "English"), ("zh", " selected", "中文"),
    ]  # fmt: skip
    # The script gives it to the page as its language.
    assert 'lang="zh"' in page
    assert "CPU，2 核" in page
    assert words(page) - {"English", "CPU"} <= UNITS | {"Patina"}
    assert words(header.wordmark()) == {"Patina"}
    alone = header.chips(MachineView("cpu", cpu_name(1), 2**30, 2**34, "idle"), ())
    assert "CPU，1 核" in alone


def test_a_style_in_the_library_is_told_in_chinese(chinese: None) -> None:
    trained = run(State.FINISHED, checkpoints=(Saved(step=50, path="x"), Saved(step=100, path="x")), verified=())
    page = [library.shelf([CARD], filtered=False), library.opened(StyleView(CARD, {}, {}, trained))]
    programs = {"kohya", "ComfyUI", "Forge", "InvokeAI", "diffusers", "PEFT", "Hugging", "Face"}
    written = {"USER", "NAME", "ID", "cc", "by"}
    assert words(*page) <= UNITS | programs | written
    assert words(library.alpha_form("")) <= {"alpha", "Alpha", "diffusers", "LoRA", "rsLoRA"}
    assert words(*(library.shelf([], filtered=filtered) for filtered in (False, True))) == {"safetensors"}


def test_pictures_and_sheets_are_told_in_chinese(chinese: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preview.caption(FORM) == f"红心 · 种子 {{seed}} · 20 步 · {SCHEDULERS[FORM.settings.scheduler].title}"
    monkeypatch.setattr("app.preview.sheet.can_write", lambda text: True)
    assert title_of(FORM, "自带图标模型") == "墨 · 纸 · 自带图标模型 · 种子 0"
    order = sheet_order(FORM, Axis("seeds", "1，2、3"), Axis("checkpoints"))
    assert order.row_labels == ("种子 1", "种子 2", "种子 3")
    assert order.column_labels == ("底模", "第 100 步", "第 200 步", "成品")


def test_a_machine_without_chinese_letters_labels_its_sheets_in_english(
    chinese: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.preview.fonts.SYSTEM", ())
    order = sheet_order(FORM, Axis("seeds", "1, 2"), Axis("checkpoints"))
    assert order.row_labels == ("seed 1", "seed 2")
    assert order.column_labels == ("base", "step 100", "step 200", "finished")
    with pytest.raises(ConfigError, match="“x”不能用于种子"):
        sheet_order(FORM, Axis("seeds", "x"), Axis("checkpoints"))


def test_letters_that_the_first_fonts_lack_come_from_a_chinese_font() -> None:
    names = [name.strip(" '\"") for name in theme().font.split(",")]
    assert names[-4:] == ["PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]

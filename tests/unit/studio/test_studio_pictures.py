"""Preview jobs, the gallery, the library and its files: what needs no worker."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from studio_parts import Parts

from trainer.adapters.weights import LayerWeights
from trainer.config import BaseConfig, RunConfig
from trainer.errors import AdapterFileError, AlphaUnknown, ImageError, StudioError
from trainer.preview.order import (
    PlacedStyle,
    PreviewOrder,
    PreviewRow,
    PreviewSettings,
    StyleUse,
    is_live,
    live_weights,
    step_of,
    weights_in,
)
from trainer.safetensors_file import read_header
from trainer.studio.folder import StudioFolder
from trainer.studio.library import Library
from trainer.studio.pictures import Pictures
from trainer.studio.preferences import Preferences
from trainer.studio.shelves import Shelves
from trainer.studio.store import State
from trainer.studio.worker.protocol import (
    Answer,
    Convert,
    Draw,
    DrawEnded,
    Drawing,
    Drawn,
    Hello,
    Inspect,
    Train,
    parse_reply,
    parse_request,
)
from trainer.styles.alpha import KEY, Alpha
from trainer.styles.metadata import copy_titled, sshs_model_hash
from trainer.styles.read import read_style
from trainer.styles.write import write_style
from trainer.training.run_folder import RunFolder

PATH = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q"


def adapter(path: Path, value: float = 1.0, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {PATH: LayerWeights(value * torch.ones(2, 8), torch.ones(8, 2), 2.0)}
    write_style(path, weights, metadata=metadata)
    return path


@pytest.fixture
def finished(parts: Parts) -> str:
    """A finished run with a file."""
    folder = RunFolder(parts.home.runs / "run-1")
    folder.write_config(RunConfig(name="Ink", trigger="ink style"))
    adapter(folder.adapter_file, 2.0, **{"patina.family": "bundled", "ss_network_dim": "2", "modelspec.title": "Ink"})
    parts.store.add("run-1", "Ink", {"name": "Ink", "trigger": "ink style"}, State.FINISHED)
    return "run-1"


def order(*strengths: float, style: str = "run-1", **changes: Any) -> PreviewOrder:
    rows = tuple(PreviewRow(prompt="a boat", seed=3, strengths=(value,)) for value in strengths)
    return PreviewOrder(styles=(StyleUse(style=style),), rows=rows).model_copy(update=changes)


def drawn(parts: Parts, job_id: str) -> Draw:
    state = parts.supervisor.drawing(job_id)
    assert state is not None
    return state.request


def deliver(parts: Parts, job_id: str, *used: str) -> None:
    """Do what a worker would do for a job, drawn with the weights ``used``."""
    state = parts.supervisor.drawing(job_id)
    assert state is not None
    take = parts.supervisor._take_drawing
    take(Drawing(job=job_id, done=1, total=2))
    for index in state.request.indices:
        path = Path(state.request.folder) / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
        take(Drawn(job=job_id, index=index, path=str(path), weights=used))
    take(DrawEnded(job=job_id, state="done"))


def test_a_job_goes_from_queued_over_working_to_done_with_its_pictures(parts: Parts, finished: str) -> None:
    job_id = parts.pictures.order(order(0.0, 1.0))
    assert parts.pictures.view(job_id).state == "queued"
    parts.supervisor._take_drawing(Drawing(job=job_id, done=3, total=40))
    view = parts.pictures.view(job_id)
    assert (view.state, view.done, view.total) == ("working", 3, 40)
    deliver(parts, job_id)
    view = parts.pictures.view(job_id)
    assert view.state == "done"
    assert [picture.row.strengths for picture in view.pictures] == [(0.0,), (1.0,)]
    assert [job.id for job in parts.pictures.newest(9)] == [job_id]


def test_only_pictures_that_were_not_made_before_are_drawn(parts: Parts, finished: str) -> None:
    deliver(parts, parts.pictures.order(order(0.0, 1.0)))
    second = parts.pictures.order(order(1.0, 0.5, 0.0))
    assert drawn(parts, second).indices == (1,)
    assert {picture.index for picture in parts.pictures.view(second).pictures} == {0, 2}
    deliver(parts, second)
    third = parts.pictures.order(order(0.5))
    assert parts.pictures.view(third).state == "done"


@pytest.mark.parametrize(
    "change",
    [
        {"rows": (PreviewRow(prompt="a boat", seed=4, strengths=(1.0,)),)},
        {"rows": (PreviewRow(prompt="a ship", seed=3, strengths=(1.0,)),)},
        {"rows": (PreviewRow(prompt="a boat", negative="x", seed=3, strengths=(1.0,)),)},
        {"settings": PreviewSettings(steps=21)},
        {"base": BaseConfig(source="bundled", clip_skip=1)},
    ],
)
def test_whatever_changes_the_pixels_is_drawn_anew(parts: Parts, finished: str, change: dict[str, Any]) -> None:
    deliver(parts, parts.pictures.order(order(1.0)))
    assert drawn(parts, parts.pictures.order(order(1.0, **change))).indices == (0,)


def test_a_file_that_changed_is_drawn_anew(parts: Parts, finished: str) -> None:
    deliver(parts, parts.pictures.order(order(1.0)))
    adapter(RunFolder(parts.home.run(finished)).adapter_file, **{"modelspec.title": "Ink, longer name"})
    assert drawn(parts, parts.pictures.order(order(1.0))).indices == (0,)


def test_weights_in_training_are_never_taken_from_before(parts: Parts, finished: str) -> None:
    parts.store.db.write("UPDATE runs SET state = 'training' WHERE id = 'run-1'")
    deliver(parts, parts.pictures.order(order(1.0)))
    request = drawn(parts, parts.pictures.order(order(1.0)))
    assert request.indices == (0,)
    assert request.styles == (PlacedStyle(style="run-1", weights=live_weights(), name="Ink"),)


def test_a_picture_keeps_which_weights_it_was_made_with(parts: Parts, finished: str) -> None:
    parts.store.db.write("UPDATE runs SET state = 'training' WHERE id = 'run-1'")
    early = parts.pictures.order(order(1.0))
    deliver(parts, early, live_weights(120))
    parts.store.db.write("UPDATE runs SET state = 'finished' WHERE id = 'run-1'")
    late = parts.pictures.order(order(1.0))
    deliver(parts, late)
    (of_early,), (of_late,) = parts.pictures.view(early).order.weights, parts.pictures.view(late).order.weights
    assert (is_live(of_early), step_of(of_early)) == (True, 120)
    assert (is_live(of_late), step_of(of_late)) == (False, None)
    assert parts.pictures.weights_now([StyleUse(style=finished)]) == (of_late,)
    adapter(RunFolder(parts.home.run(finished)).adapter_file, **{"modelspec.title": "Ink, longer name"})
    assert parts.pictures.weights_now([StyleUse(style=finished)]) != (of_late,)


def test_a_run_that_ended_before_its_picture_was_drawn_is_shown_with_its_file(parts: Parts, finished: str) -> None:
    parts.store.db.write("UPDATE runs SET state = 'training' WHERE id = 'run-1'")
    job_id = parts.pictures.order(order(1.0))
    assert parts.pictures.view(job_id).order.weights == (live_weights(),)
    from_file = weights_in(RunFolder(parts.home.run(finished)).adapter_file)
    deliver(parts, job_id, from_file)
    assert parts.pictures.view(job_id).order.weights == (from_file,)


def test_a_job_that_waits_says_why(parts: Parts, finished: str) -> None:
    job_id = parts.pictures.order(order(1.0))
    parts.supervisor._take_drawing(Drawing(job=job_id, waits="Another base is in use."))
    view = parts.pictures.view(job_id)
    assert (view.state, view.message) == ("queued", "Another base is in use.")


def test_a_cancelled_job_stays_cancelled_whatever_the_worker_still_says(parts: Parts, finished: str) -> None:
    job_id = parts.pictures.order(order(1.0))
    parts.pictures.cancel(job_id)
    assert parts.pictures.view(job_id).state == "cancelled"
    parts.supervisor._take_drawing(DrawEnded(job=job_id, state="done"))
    assert parts.pictures.view(job_id).state == "cancelled"


def test_deleting_a_job_keeps_pictures_that_another_one_shows(parts: Parts, finished: str) -> None:
    first = parts.pictures.order(order(0.0, 1.0))
    deliver(parts, first)
    second = parts.pictures.order(order(1.0))
    shared = parts.pictures.view(second).pictures[0].path
    own = parts.pictures.view(first).pictures[0].path
    parts.pictures.delete(first)
    assert shared.is_file()
    assert not own.exists()
    with pytest.raises(StudioError, match="not in the gallery any more"):
        parts.pictures.view(first)
    parts.pictures.delete(second)
    assert not shared.exists()
    assert not shared.parent.exists()


def test_open_jobs_of_a_closed_studio_are_over(parts: Parts, finished: str) -> None:
    job_id = parts.pictures.order(order(1.0))
    parts.jobs.tidy_up()
    assert parts.jobs.get(job_id).state == "cancelled"
    assert parts.jobs.get(job_id).message.endswith(".")


def test_a_sheet_is_one_labelled_picture_that_says_what_was_ordered(parts: Parts, finished: str) -> None:
    wanted = order(0.0, 1.0, 0.0, 1.0, columns=2, column_labels=("0", "1"), row_labels=("cat", "dog"))
    job_id = parts.pictures.order(wanted)
    with pytest.raises(StudioError, match="not complete yet"):
        parts.pictures.sheet(job_id)
    deliver(parts, job_id)
    sheet = parts.pictures.sheet(job_id)
    with Image.open(sheet) as picture:
        assert picture.width > picture.height / 2
        said = PreviewOrder.model_validate_json(picture.info["patina"])
    assert said.drawn_with([""]) == wanted
    assert said.weights == parts.pictures.weights_now(wanted.styles)
    plain = parts.pictures.order(order(0.25))
    deliver(parts, plain)
    with pytest.raises(StudioError, match="not made as a sheet"):
        parts.pictures.sheet(plain)


def test_an_order_that_cannot_be_filled_is_a_sentence(parts: Parts, finished: str) -> None:
    with pytest.raises(StudioError, match="write a prompt"):
        parts.pictures.order(PreviewOrder(rows=()))
    with pytest.raises(StudioError, match="2 strengths for 1 styles"):
        parts.pictures.order(order(1.0, rows=(PreviewRow(prompt="x", strengths=(1.0, 1.0)),)))
    with pytest.raises(StudioError, match="no run 'gone'"):
        parts.pictures.order(order(1.0, style="gone"))
    parts.store.add("fresh", "Fresh", {})
    with pytest.raises(StudioError, match="learned nothing yet"):
        parts.pictures.order(order(1.0, style="fresh"))


def test_an_order_that_names_no_base_is_drawn_on_the_one_its_style_was_trained_on(parts: Parts, finished: str) -> None:
    parts.store.db.write("UPDATE runs SET settings = ?", (json.dumps({"base": {"source": "some/model"}}),))
    assert drawn(parts, parts.pictures.order(order(1.0))).base.source == "some/model"
    rows = (PreviewRow(prompt="x"),)
    assert drawn(parts, parts.pictures.order(PreviewOrder(rows=rows))).base.source == "bundled"
    other = PreviewOrder(base=BaseConfig(source="other/model"), styles=(StyleUse(style=finished),), rows=rows)
    assert drawn(parts, parts.pictures.order(other)).base.source == "other/model"


# ---- library


def test_a_card_says_what_the_file_says(parts: Parts, finished: str) -> None:
    (card,) = parts.library.cards()
    assert (card.id, card.name, card.trigger, card.rank) == ("run-1", "Ink", "ink style", 2)
    assert (card.family, card.layout, card.origin, card.base) == ("bundled", "kohya", "trained", "bundled")
    assert card.size_bytes == card.file.stat().st_size


def test_a_run_whose_file_is_gone_or_damaged_is_not_in_the_library(parts: Parts, finished: str) -> None:
    file = RunFolder(parts.home.run(finished)).adapter_file
    file.write_bytes(file.read_bytes()[:40])
    assert parts.library.cards() == []
    file.unlink()
    with pytest.raises(StudioError, match="has no file"):
        parts.library.card(finished)


def test_a_download_has_the_styles_name_inside_and_outside(parts: Parts, finished: str) -> None:
    parts.store.rename(finished, "Tusche: groß")
    source = RunFolder(parts.home.run(finished)).adapter_file
    target = parts.library.download(finished, "kohya")
    assert target.name == "Tusche_groß.safetensors"
    copy, original = read_style(target), read_style(source)
    assert copy.metadata["modelspec.title"] == copy.metadata["ss_output_name"] == "Tusche: groß"
    assert copy.metadata["patina.family"] == original.metadata["patina.family"]
    assert torch.equal(copy.layers[PATH].down, original.layers[PATH].down)
    assert sshs_model_hash(target) == copy.metadata["sshs_model_hash"] == sshs_model_hash(source)
    assert parts.library.download(finished, "kohya") == target
    parts.store.rename(finished, "Other")
    assert [path.name for path in parts.library.download(finished, "kohya").parent.iterdir()] == ["Other.safetensors"]


def test_a_file_that_is_no_style_cannot_be_given_a_title(tmp_path: Path) -> None:
    for content in (b"", b"\x10\0\0\0\0\0\0\0not json........", b"\xff" * 40):
        source = tmp_path / "x.safetensors"
        source.write_bytes(content)
        with pytest.raises(AdapterFileError):
            copy_titled(source, tmp_path / "y.safetensors", "name")
        assert not (tmp_path / "y.safetensors").exists()


class Answering:
    """A worker's answers, given at once."""

    def __init__(self, title: str = "", error: Exception | None = None) -> None:
        self.title, self.error = title, error
        self.asked: list[Inspect | Convert] = []

    def __call__(self, request: Inspect | Convert) -> dict[str, Any]:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return {"path": "somewhere", "title": self.title, "ranks": [2]}


def shelf(parts: Parts, ask: Answering) -> Library:
    return Library(parts.store.db, parts.home, parts.store, parts.runs, ask)


def test_an_imported_style_lies_in_the_studio_with_its_name_and_picture(parts: Parts, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "JPEG")
    thumbnail = "data:image/jpeg;base64," + base64.b64encode(picture.getvalue()).decode()
    source = adapter(tmp_path / "downloaded (1).safetensors", **{"modelspec.thumbnail": thumbnail})
    library = shelf(parts, Answering(title="Line\nart"))
    card = library.card(library.add(source))
    source.unlink()
    assert card.name == "Line art"
    assert card.file.is_file()
    with Image.open(card.thumbnails[0]) as shown:
        assert (shown.format, shown.size) == ("PNG", (64, 64))
    assert library.facts(card) == {"title": "Line\nart", "ranks": [2]}


@pytest.mark.parametrize("thumbnail", ["data:image/png;base64,!!!", "data:image/png;base64,AAAA", "https://x", ""])
def test_a_style_with_a_bad_picture_is_still_a_style(parts: Parts, tmp_path: Path, thumbnail: str) -> None:
    source = adapter(tmp_path / "style.safetensors", **{"modelspec.thumbnail": thumbnail})
    library = shelf(parts, Answering())
    card = library.card(library.add(source))
    assert (card.name, card.thumbnails) == ("style", ())


def test_a_style_that_the_worker_refuses_leaves_nothing_behind(parts: Parts, tmp_path: Path) -> None:
    source = adapter(tmp_path / "style.safetensors")
    library = shelf(parts, Answering(error=AdapterFileError("It is LoHa.")))
    with pytest.raises(AdapterFileError, match="LoHa"):
        library.add(source)
    assert list(parts.home.styles.iterdir()) == []
    assert library.cards() == []


def test_an_alpha_that_was_told_stays_with_the_librarys_copy(parts: Parts, tmp_path: Path) -> None:
    source = adapter(tmp_path / "style.safetensors")
    ask = Answering()
    library = shelf(parts, ask)
    card = library.card(library.add(source, alpha=Alpha(16.0, by_root=True)))
    assert Alpha.kept(card.file, library.metadata(card)) == Alpha(16.0, by_root=True)
    assert KEY not in read_header(source, AdapterFileError).metadata
    library.download(card.id, card.layout)
    assert isinstance(ask.asked[-1], Convert), "elsewhere nobody knows our key"


def test_a_file_that_does_not_say_its_alpha_is_not_taken_in_unasked(parts: Parts, tmp_path: Path) -> None:
    library = shelf(parts, Answering(error=AlphaUnknown("It does not say its alpha.")))
    with pytest.raises(AlphaUnknown):
        library.add(adapter(tmp_path / "style.safetensors"))
    assert list(parts.home.styles.iterdir()) == []


def test_what_is_plainly_no_style_is_refused_without_a_worker(parts: Parts, tmp_path: Path) -> None:
    ask = Answering()
    for name, content in (("x.ckpt", b"PK\x03\x04"), ("x.safetensors", b"no"), ("y.safetensors", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AdapterFileError):
            shelf(parts, ask).add(tmp_path / name)
    with pytest.raises(AdapterFileError):
        shelf(parts, ask).add(tmp_path / "missing.safetensors")
    assert ask.asked == []


def test_an_imported_style_is_renamed_deleted_and_taken_back(parts: Parts, tmp_path: Path) -> None:
    library = shelf(parts, Answering())
    style = library.add(adapter(tmp_path / "style.safetensors"), "First")
    library.rename(style, "Second")
    library.delete(style)
    assert library.cards() == []
    library.restore(style)
    assert [card.name for card in library.cards()] == ["Second"]
    library.delete(style)
    library.empty_trash(before=1e18)
    assert list(parts.home.styles.iterdir()) == []


@pytest.mark.parametrize("rank", ["\u00b2", "9" * 5000, "-1", "1.5", "\ud800", "\U0001d7d8", ""])
def test_a_file_that_says_nonsense_of_itself_has_a_card_and_never_takes_the_list_down(
    parts: Parts, finished: str, tmp_path: Path, rank: str
) -> None:
    source = tmp_path / "odd.safetensors"
    said = {
        "ss_network_dim": rank,
        "modelspec.trigger_phrase": "half \ud83d pair",
        "ss_base_model_version": "\udc00",
        "modelspec.thumbnail": "data:image/png;base64," + rank,
    }
    with adapter(tmp_path / "plain.safetensors").open("rb") as plain:
        table = json.loads(plain.read(int.from_bytes(plain.read(8), "little")))
        rest = plain.read()
    table["__metadata__"] |= said
    head = json.dumps(table).encode()
    source.write_bytes(len(head).to_bytes(8, "little") + head + rest)
    library = shelf(parts, Answering())
    style = library.add(source)
    assert {card.id for card in library.cards()} == {style, finished}
    view = library.view(style)
    assert view.card.rank is None
    json.dumps([view.metadata, view.card.trigger, view.card.base], ensure_ascii=False).encode()


def test_a_header_that_no_code_foresaw_costs_the_list_nothing(
    parts: Parts, finished: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(metadata: object) -> str:
        raise RecursionError

    monkeypatch.setattr("trainer.studio.library.family_of", broken)
    (card,) = parts.library.cards()
    assert (card.id, card.family) == (finished, "")
    assert finished in caplog.text


def test_a_refused_import_speaks_of_the_file_that_was_chosen_and_of_no_inner_place(
    parts: Parts, tmp_path: Path
) -> None:
    class Refusing(Answering):
        def __call__(self, request: Inspect | Convert) -> dict[str, Any]:
            assert isinstance(request, Inspect)
            raise AdapterFileError(f"{request.path} is no style file.")

    with pytest.raises(AdapterFileError) as refused:
        shelf(parts, Refusing()).add(adapter(tmp_path / "chosen.safetensors"))
    assert str(refused.value) == "chosen.safetensors is no style file."
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(AdapterFileError) as refused:
        shelf(parts, Answering()).add(tmp_path / "broken.safetensors")
    assert str(tmp_path) not in str(refused.value)


def test_the_same_weights_are_taken_once_and_named_whatever_is_written_around_them(
    parts: Parts, finished: str, tmp_path: Path
) -> None:
    library = shelf(parts, Answering())
    first = library.add(adapter(tmp_path / "first.safetensors", value=0.5), "First")
    copy_titled(tmp_path / "first.safetensors", tmp_path / "again.safetensors", "Another title")
    with pytest.raises(AdapterFileError, match=r"again\.safetensors is in the library already.*: First"):
        library.add(tmp_path / "again.safetensors")
    own = RunFolder(parts.home.run(finished)).adapter_file
    with pytest.raises(AdapterFileError, match="already"):
        library.add(own)
    parts.store.db.write("UPDATE styles SET weights = ''")
    with pytest.raises(AdapterFileError, match="already"):
        library.add(tmp_path / "again.safetensors")
    library.delete(first)
    library.add(tmp_path / "again.safetensors", "Back")
    assert {path.name for path in parts.home.styles.iterdir()} >= {first}
    assert "Back" in {card.name for card in library.cards()}


# ---- the pipe


@pytest.mark.parametrize(
    "message",
    [
        Train(run="a"),
        Draw(
            job="j",
            base=BaseConfig(source="bundled"),
            styles=(PlacedStyle(style="a", name="x", path="p"),),
            rows=(PreviewRow(prompt="\u2028 \n é"),),
            indices=(0,),
            settings=PreviewSettings(steps=3),
            folder="f",
        ),
        Convert(ask="c", source="s", target="t", layout="diffusers", name="n"),
    ],
)
def test_a_request_is_one_line_and_comes_back_as_it_was(message: Train | Draw | Convert) -> None:
    line = message.line().encode()
    assert b"\n" not in line
    assert parse_request(line) == message


def test_lines_that_are_no_messages_are_passed_over() -> None:
    assert parse_request(b"Downloading: 3%") is None
    assert parse_request(b'{"type": "explode"}') is None
    assert parse_reply(b'{"type": "hello"}') is None
    assert parse_reply(Answer(ask="a", data={"x": [1, None]}).line()) == Answer(ask="a", data={"x": [1, None]})
    later = json.loads(Hello(pid=1, device="cpu", device_name="CPU", memory_total=1).line()) | {"new": 1}
    assert isinstance(parse_reply(json.dumps(later)), Hello)


def test_the_studio_folder_is_the_users_unless_told_otherwise(
    patina_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.studio.folder import studio_path

    assert studio_path() == patina_home
    monkeypatch.setenv("PATINA_HOME", " ")
    assert studio_path().name == "patina"


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudioError, match="Set PATINA_HOME"):
        StudioFolder(tmp_path / "file" / "studio").prepare()


# ---- a picture to begin with


def test_a_picture_to_begin_with_is_kept_by_its_bytes_and_decides_the_pixels(
    parts: Parts, finished: str, uploads: list[Path]
) -> None:
    name = parts.pictures.begin_with(uploads[0])
    assert parts.pictures.begin_with(uploads[0]) == name != parts.pictures.begin_with(uploads[1])
    deliver(parts, parts.pictures.order(order(1.0)))
    begun = order(1.0, settings=PreviewSettings(image=name, change=0.5))
    request = drawn(parts, job := parts.pictures.order(begun))
    assert (request.indices, request.settings.image) == ((0,), str(parts.home.begun / name))
    assert parts.pictures.view(job).order.settings.image == name, "no path, so that the studio may move"
    deliver(parts, job)
    assert parts.pictures.view(parts.pictures.order(begun)).state == "done"
    changed = order(1.0, settings=PreviewSettings(image=name, change=0.6))
    assert drawn(parts, parts.pictures.order(changed)).indices == (0,)
    parts.jobs.tidy_up()
    assert [file.name for file in parts.home.begun.iterdir()] == [name], "of the other nothing was made"


@pytest.mark.parametrize("name", ["../studio.sqlite3", "0" * 32 + ".png", "a.png"])
def test_a_picture_to_begin_with_that_is_not_there_is_a_sentence(parts: Parts, finished: str, name: str) -> None:
    with pytest.raises(StudioError, match="Choose it again"):
        parts.pictures.order(order(1.0, settings=PreviewSettings(image=name)))
    assert parts.pictures.newest() == []


def test_a_file_that_is_no_picture_cannot_be_begun_with(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no picture at all")
    with pytest.raises(ImageError, match=r"no\.png"):
        parts.pictures.begin_with(tmp_path / "no.png")


# ---- what people told the studio to keep


def test_prompts_are_kept_newest_first_and_once(parts: Parts) -> None:
    kept = Preferences(parts.store.db)
    for prompt in ("a boat", "a  cat\non a mat", "a boat"):
        kept.keep_prompt(prompt)
    assert kept.prompts() == ("a boat", "a cat on a mat")
    kept.forget_prompt("a boat")
    assert Preferences(parts.store.db).prompts() == ("a cat on a mat",)
    with pytest.raises(StudioError, match="write one first"):
        kept.keep_prompt("  ")


def test_folders_are_kept_when_they_are_there(parts: Parts, tmp_path: Path) -> None:
    kept = Preferences(parts.store.db)
    kept.add_folder("models", f' "{tmp_path}" ')
    kept.add_folder("models", str(tmp_path))
    assert (kept.folders("models"), kept.folders("styles")) == ((tmp_path,), ())
    for wrong in ("", "no/such", str(tmp_path / "gone")):
        with pytest.raises(StudioError, match="no folder"):
            kept.add_folder("models", wrong)
    kept.remove_folder("models", str(tmp_path))
    assert kept.folders("models") == ()


# ---- tags, twins, and folders of somebody's own


def test_styles_are_found_by_tags_and_those_with_the_same_weights_are_named(parts: Parts, finished: str) -> None:
    folder = parts.home.path / "elsewhere"
    folder.mkdir()
    twin = adapter(folder / "twin.safetensors", 2.0, **{"modelspec.title": "another"})
    other = adapter(folder / "other.safetensors", 3.0)
    linked = [twin, other]
    library = Library(parts.store.db, parts.home, parts.store, parts.runs, Answering(), lambda: linked)
    library.set_tags(finished, ["comic ", "ink", "ink", " "])
    assert library.card(finished).tags == ("comic", "ink")
    assert [card.name for card in library.cards(tag="ink")] == ["Ink"]
    assert [card.name for card in library.cards("COM")] == ["Ink"]
    assert library.view(finished).twins == ("twin",)
    with pytest.raises(StudioError, match="at most"):
        library.set_tags(finished, ["x" * 41])

    card = next(card for card in library.cards() if card.name == "twin")
    assert (card.origin, card.file) == ("linked", twin)
    assert library.is_imported(card.id)
    assert library.view(card.id).run is None
    assert library.download(card.id).read_bytes() != b""
    for change in (library.delete, lambda style: library.rename(style, "x")):
        with pytest.raises(StudioError, match="folder of your own"):
            change(card.id)
    pictures = Pictures(parts.home, parts.store, parts.jobs, library, parts.supervisor)
    assert drawn(parts, pictures.order(order(1.0, style=card.id))).styles[0].path == str(twin)
    linked.clear()
    with pytest.raises(StudioError, match="has no file"):
        library.card(card.id)


def test_folders_of_styles_show_style_files_alone(parts: Parts, tmp_path: Path) -> None:
    folder = tmp_path / "styles"
    (folder / "by somebody").mkdir(parents=True)
    adapter(folder / "by somebody" / "a.safetensors")
    save_file({"model.weight": torch.zeros(2)}, folder / "model.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nonsense")
    kept = Preferences(parts.store.db)
    shelves = Shelves(kept, parts.bases)
    assert shelves.styles() == []
    kept.add_folder("styles", str(folder))
    assert [path.name for path in shelves.styles()] == ["a.safetensors"]

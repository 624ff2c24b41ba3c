"""The command line as a person uses it, on the bundled base and a folder of four small pictures."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from gates import Gates
from PIL import Image, ImageDraw
from studio_parts import put_together
from typer.testing import CliRunner

from trainer.cli import app
from trainer.config import load
from trainer.events import Finished, Interrupted, parse_event
from trainer.studio.folder import StudioFolder
from trainer.styles.metadata import sshs_model_hash
from trainer.styles.read import read_style

PICTURES = 4
QUICK = [
    *("--steps", "3", "--batch-size", "1", "--rank", "2", "--resolution", "32", "--prompt", "cat"),
    *("--sample-every", "0", "--set", "samples.steps=1", "--set", "train.threads=1"),
]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def patina(*arguments: object) -> Said:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="patina")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands set the number of threads of this process; the tests after them should not notice."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "rings"
    folder.mkdir()
    for index in range(PICTURES):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((4 + 7 * index, 8, 56, 30 + 8 * index), outline="black", width=4)
        picture.save(folder / f"ring-{index}.png")
        (folder / f"ring-{index}.txt").write_text(f"a ring, number {index}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A finished run with what the command said."""
    out = tmp_path_factory.mktemp("runs") / "my run"
    return out, patina("train", images, *QUICK, "--trigger", "ring style", "--lr", "0.05", "--out", out)


@pytest.fixture(scope="module")
def adapter(trained: tuple[Path, Said]) -> Path:
    return trained[0] / "adapter.safetensors"


# ---- train


def test_train_with_out_makes_that_folder_the_run(trained: tuple[Path, Said]) -> None:
    out, said = trained
    assert said.code == 0, said.err
    settings = load(out / "config.toml")
    assert (settings.name, settings.trigger, settings.adapter.rank) == ("rings", "ring style", 2)
    assert (out / "adapter.safetensors").is_file()
    assert (out / "sheet.png").is_file()


def test_train_says_what_it_found_what_it_plans_and_where_everything_lies(trained: tuple[Path, Said]) -> None:
    out, said = trained
    lines = said.out.splitlines()
    found = next(index for index, line in enumerate(lines) if line.startswith("Found 4 images"))
    steps = next(index for index, line in enumerate(lines) if line.startswith("Steps:"))
    done = next(index for index, line in enumerate(lines) if line.startswith("Step 3/3, loss"))
    assert found < steps < done
    assert f"Style: {out / 'adapter.safetensors'}" in lines, "a path stays on one line, however long it is"
    assert f"Sheet: {out / 'sheet.png'}" in lines
    assert "\x1b" not in said.out, "no colours in a pipe"


def test_train_json_is_events_and_nothing_else_and_the_studio_finds_the_run(images: Path, patina_home: Path) -> None:
    said = patina("train", images, *QUICK, "--steps", "2", "--name", "From outside", "--json")
    assert said.code == 0
    events = [parse_event(line) for line in said.out.splitlines()]
    assert None not in events
    assert {"found", "planned", "started", "progress", "saved", "finished"} <= {event.type for event in events if event}
    assert isinstance(events[-1], Finished)
    (folder,) = StudioFolder(patina_home).runs.iterdir()
    assert (folder / events[-1].adapter).is_file(), "without --out the run lives in the studio folder"

    parts = put_together(patina_home)
    parts.runs.adopt()
    (run,) = parts.runs.all()
    parts.store.db.close()
    assert (run.id, run.name, run.state) == (folder.name, "From outside", "finished")


def test_single_bad_images_are_listed_and_the_others_are_trained_on(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(images, folder)
    Image.effect_noise((200, 200), 50).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "letter.png").write_text("Dear reader", encoding="utf-8")
    (folder / "huge.png").write_bytes(png_of(30_000, 30_000))
    said = patina("train", folder, *QUICK, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert "Found 4 images to train on." in said.out
    for name in ("cut.jpg", "empty.png", "letter.png", "huge.png"):
        (line,) = (line for line in said.out.splitlines() if line.strip().startswith(name))
        assert line.endswith("left out")
        assert line.count(name) == 1


@pytest.mark.parametrize("bad", ["empty", "missing", "file", "only bad", "latin-1"])
def test_a_folder_that_cannot_be_trained_on_is_one_sentence(images: Path, tmp_path: Path, bad: str) -> None:
    folder = tmp_path / "folder"
    if bad == "file":
        folder.write_text("", encoding="utf-8")
    elif bad == "latin-1":
        shutil.copytree(images, folder)
        (folder / "ring-0.txt").write_bytes("schön".encode("latin-1"))
    elif bad != "missing":
        folder.mkdir()
    if bad == "only bad":
        (folder / "a.png").write_text("no picture", encoding="utf-8")
    expected = {
        "empty": "There are no images in",
        "missing": "There is no folder",
        "file": "is a file: give the folder that holds the images",
        "only bad": "a.png",
        "latin-1": "ring-0.txt is not saved as UTF-8",
    }
    said = patina("train", folder, *QUICK, "--out", tmp_path / "run")
    assert_one_sentence(said, expected[bad])
    assert not (tmp_path / "run").exists(), "what never began leaves nothing, so that it can be tried again"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--rank", "0"], "--rank is '0', but should be at least 1."),
        (["--rank", "four"], "--rank is 'four', but should be a whole number."),
        (["--rank", "500"], "adapter.rank is 500, but"),
        (["--lr", "-1e-4"], "--lr is '-1e-4', but should be above 0."),
        (["--lr", "nan"], "--lr is 'nan', but should be a finite number."),
        (["--targets", "attn2.("], "--targets is 'attn2.(', but should be cross, qv,"),
        (["--targets", "nothing"], "adapter.targets 'nothing' matches no layer of this base"),
        (["--base", "bundeld"], "did you mean 'bundled'?"),
        (["--base", "no such base"], "The base 'no such base' is not known"),
        (["--preset", "quik"], "did you mean quick?"),
        (["--resolution", "100"], "--resolution is '100', but should be a multiple of 8."),
        (["--set", "optim.ema_decy=0.9"], "did you mean optim.ema_decay?"),
        (["--set", "optim.ema_decay"], "should look like optim.ema_decay=0.99"),
        (["--config", "none.toml"], "none.toml does not exist."),
        (["--config", "broken.toml"], "broken.toml is not valid TOML"),
        (["--config", "unknown.toml"], "unknown.toml: There is no setting adapter.rnk (did you mean adapter.rank?)."),
        (["--out", "taken"], "is not an empty folder"),
        (["--out", "a run"], "holds a run already: resume it with --resume"),
        (["--out", "broken.toml"], "is not an empty folder"),
        (["--out", "broken.toml/run"], "cannot be made"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("[adapter", encoding="utf-8")
    (tmp_path / "unknown.toml").write_text("[adapter]\nrnk = 3", encoding="utf-8")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "a run" / "checkpoints" / "step-000001").mkdir(parents=True)
    (tmp_path / "a run" / "config.toml").write_text("", encoding="utf-8")
    out = [] if "--out" in options else ["--out", "run"]
    assert_one_sentence(patina("train", images, *QUICK, *out, *options), expected)
    assert not Path("run").exists()
    assert (tmp_path / "taken" / "thesis.txt").read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "a run" / "checkpoints" / "step-000001").is_dir()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_a_card_that_is_not_there_is_one_sentence(images: Path) -> None:
    assert_one_sentence(patina("train", images, "--device", "cuda"), "finds no NVIDIA or AMD card")


def test_an_error_is_json_too_when_json_is_asked_for(images: Path) -> None:
    said = patina("train", images, "--rank", "0", "--json")
    assert said.code == 2
    assert json.loads(said.out) == {"type": "error", "message": "--rank is '0', but should be at least 1."}


def test_a_config_file_is_overruled_by_options(images: Path, tmp_path: Path, trained: tuple[Path, Said]) -> None:
    out = tmp_path / "again"
    said = patina("train", images, "--config", trained[0] / "config.toml", "--rank", "1", "--out", out)
    assert said.code == 0, said.err
    first, second = load(trained[0] / "config.toml"), load(out / "config.toml")
    assert (first.adapter.rank, second.adapter.rank) == (2, 1)
    assert second.train.steps == first.train.steps
    assert second.trigger == first.trigger


# ---- resume


def test_resume_of_what_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    assert_one_sentence(patina("train", "--resume", tmp_path), "is no run folder: it has no config.toml")
    assert_one_sentence(patina("train", "--resume", tmp_path, "--rank", "3"), "A resumed run keeps its settings")


def test_resume_of_a_finished_run_gives_the_same_file(trained: tuple[Path, Said]) -> None:
    out, _ = trained
    before = sshs_model_hash(out / "adapter.safetensors")
    said = patina("train", "--resume", out)
    assert said.code == 0, said.err
    assert "Going on from step 3 of 3." in said.out
    assert sshs_model_hash(out / "adapter.safetensors") == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_saves_says_how_to_go_on_and_resume_gives_the_same_file(images: Path, tmp_path: Path) -> None:
    options = [*QUICK, "--steps", "30"]
    assert patina("train", images, *options, "--out", tmp_path / "whole").code == 0

    options += ["--out", str(tmp_path / "parted"), "--json"]
    gates = Gates(tmp_path / "gates")
    gates.close(step=5)
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "train", str(images), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **gates.environment, "OMP_NUM_THREADS": "1"},
    )
    try:
        gates.arrived(step=5)
    finally:
        process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Saving; press Ctrl-C again to stop at once." in err
    assert f"Go on with: patina train --resume {tmp_path / 'parted'}" in err
    last = parse_event(rest.splitlines()[-1])
    assert isinstance(last, Interrupted)
    assert last.step == 5
    assert "Traceback" not in err

    said = patina("train", "--resume", tmp_path / "parted")
    assert said.code == 0, said.err
    assert "Going on from step" in said.out
    hashes = {sshs_model_hash(tmp_path / name / "adapter.safetensors") for name in ("whole", "parted")}
    assert len(hashes) == 1


def test_a_disk_that_fills_up_costs_no_saved_step(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "run" / "adapter.safetensors"))

    with monkeypatch.context() as patch:
        patch.setattr("trainer.training.ending.export", full)
        said = patina("train", images, *QUICK, "--out", tmp_path / "run")
    assert said.code == 2
    kept, full_disk = said.err.splitlines()
    assert kept.endswith(f"Go on with: patina train --resume {tmp_path / 'run'}")
    assert full_disk.startswith("patina: The disk is full and ")
    assert patina("train", "--resume", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "adapter.safetensors").is_file()


# ---- sample


def test_strength_zero_is_the_base_and_more_is_more(adapter: Path, tmp_path: Path) -> None:
    drawn = ["--prompt", "cat face", "--steps", "2", "--size", "64", "--seed", "5"]
    styled = patina("sample", "--adapter", adapter, "--strength", "0,0.5,1", *drawn, "--out", tmp_path / "styled")
    assert styled.code == 0, styled.err
    assert styled.out.split() == [
        str(tmp_path / "styled" / name) for name in ("000.png", "001.png", "002.png", "sheet.png")
    ]
    # The same number of rows, because a batch of another shape may round otherwise.
    plain = patina("sample", *["--prompt", "cat face"] * 2, *drawn, "--out", tmp_path / "plain")
    assert plain.code == 0, plain.err
    zero, half, full = (Image.open(tmp_path / "styled" / f"00{index}.png") for index in range(3))
    base = Image.open(tmp_path / "plain" / "000.png")
    assert zero.tobytes() == base.tobytes()
    assert distance(zero, half) > 0
    assert distance(zero, full) > distance(zero, half)
    assert full.text["parameters"] == (  # type: ignore[attr-defined]
        "cat face <lora:adapter:1>\n"
        "Steps: 2, Sampler: DDIM, CFG scale: "
        + full.text["parameters"].split("CFG scale: ")[1].split(",")[0]  # type: ignore[attr-defined]
        + ", Seed: 5, Size: 64x64, Model: Bundled icons, Version: Patina"
    )
    assert "<lora:" not in zero.text["parameters"]  # type: ignore[attr-defined]
    begun = ["--image", tmp_path / "styled" / "000.png", "--change", "0.5", *drawn, "--out", tmp_path / "begun.png"]
    assert patina("sample", *begun).code == 0
    over = Image.open(tmp_path / "begun.png")
    assert "Denoising strength: 0.5" in over.text["parameters"]  # type: ignore[attr-defined]
    assert 0 < distance(zero, over) < distance(full, over)
    refused = patina("sample", *[*begun[:3], "2", *begun[4:]])
    assert (refused.code, "--change" in refused.err) == (2, True)


def test_several_styles_are_mixed_or_compared(adapter: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    shutil.copy(adapter, other)
    uses = ["--adapter", f"{adapter}:0.5", "--adapter", f"{other}:0.25", "--prompt", "dog", "--steps", "1"]
    mixed = patina("sample", *uses, "--negative", "blurry", "--out", tmp_path / "mixed.png")
    assert mixed.code == 0, mixed.err
    with Image.open(tmp_path / "mixed.png") as picture:
        text = picture.text["parameters"]  # type: ignore[attr-defined]
    assert text.startswith("dog <lora:adapter:0.5> <lora:other:0.25>\nNegative prompt: blurry\n")

    compared = patina("sample", *uses, "--compare", "--out", tmp_path / "compared")
    assert compared.code == 0, compared.err
    texts = []
    for index in range(3):
        with Image.open(tmp_path / "compared" / f"{index:03d}.png") as picture:
            texts.append(picture.text["parameters"].splitlines()[0])  # type: ignore[attr-defined]
    assert texts == ["dog", "dog <lora:adapter:0.5>", "dog <lora:other:0.25>"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--adapter", "style.safetensors:strong"], "its strength should be a number"),
        (["--strength", "0,much"], "--strength is '0,much', but should be numbers"),
        (["--size", "big"], "--size is 'big', but should be width x height"),
        (["--size", "100"], "width is 100, but should be a multiple of 32 pixels for this base, such as 96."),
        (["--steps", "0"], "--steps is '0', but should be at least 1."),
        (["--seed", "-1"], "--seed is '-1', but should be at least 0."),
        (["--guidance", "nan"], "--guidance is 'nan', but should be a finite number."),
        (["--scheduler", "eulr"], "did you mean euler?"),
        (["--device", "gpu"], "--device is 'gpu', but should be 'auto'"),
        (["--strength", ",".join(["1"] * 500), "--adapter", "style.safetensors"], "500 pictures; draw at most 400"),
        (["--out", "a.jpg"], "should end in .png"),
        (["--out", "."], None),
        (["--adapter", "none.safetensors"], "There is no file none.safetensors."),
        (["--adapter", "short.safetensors"], "short.safetensors is cut short"),
        (["--adapter", "pickle.safetensors"], "pickle.safetensors is a pickle"),
        (["--adapter", "foreign.safetensors"], "foreign.safetensors does not say which base it was trained on"),
        (["--adapter", "foreign.safetensors", "--base", "bundled"], "foreign.safetensors does not fit this base"),
    ],
)
def test_a_wrong_wish_for_a_picture_is_one_sentence(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(adapter, "style.safetensors")
    Path("short.safetensors").write_bytes(adapter.read_bytes()[:-50])
    Path("pickle.safetensors").write_bytes(b"\x80\x02}q\x00.")
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"
    write_safetensors(
        Path("foreign.safetensors"),
        {f"{key}.lora_down.weight": (4, 320), f"{key}.lora_up.weight": (320, 4), f"{key}.alpha": ()},
    )
    said = patina("sample", "--prompt", "cat", "--steps", "1", *options)
    if expected is None:
        assert said.code == 0, said.err
        assert Path("000.png").is_file()
    else:
        assert_one_sentence(said, expected)


# ---- inspect and export


def test_inspect_tells_people_and_machines_the_same(adapter: Path) -> None:
    facts = json.loads(patina("inspect", adapter, "--json").out)
    assert facts["layout"] == "kohya"
    assert facts["ranks"] == [2]
    assert facts["trigger"] == "ring style"
    assert facts["hash"] == facts["stored_hash"] == sshs_model_hash(adapter)
    shown = patina("inspect", adapter, "--layers").out
    assert facts["hash"] in shown
    assert "ring style" in shown
    for layer in facts["layers"]:
        assert any(line.endswith(f"  {layer['path']}") for line in shown.splitlines())


def test_convert_to_diffusers_and_back_changes_nothing(adapter: Path, tmp_path: Path) -> None:
    # As `export` the command is called in older instructions.
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert patina("convert", adapter, "--out", there, "--format", "diffusers").code == 0
    assert patina("export", there, "--out", back).code == 0
    assert json.loads(patina("inspect", there, "--json").out)["layout"] != "kohya"
    before, after = read_style(adapter), read_style(back)
    assert sshs_model_hash(back) == sshs_model_hash(adapter)
    assert before.layers.keys() == after.layers.keys()
    assert after.metadata["modelspec.trigger_phrase"] == "ring style"


def test_convert_in_half_precision_halves_the_file(adapter: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.safetensors"
    assert patina("convert", adapter, "--out", small, "--precision", "fp16").code == 0
    assert json.loads(patina("inspect", small, "--json").out)["dtypes"] == ["float16"]
    assert small.stat().st_size < 0.8 * adapter.stat().st_size


def test_convert_overwrites_nothing_and_names_what_is_wrong(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "old.safetensors").write_bytes(b"precious")
    for out, more, expected in (
        ("old.safetensors", [], "exists already"),
        ("new.pt", [], "should end in .safetensors"),
        ("none/new.safetensors", [], "there is no folder"),
        ("new.safetensors", ["--format", "peft"], "--format is 'peft', but should be kohya or diffusers."),
        ("new.safetensors", ["--precision", "int8"], "--precision is 'int8', but should be fp32, fp16 or bf16."),
    ):
        assert_one_sentence(patina("convert", adapter, "--out", tmp_path / out, *more), expected)
    assert (tmp_path / "old.safetensors").read_bytes() == b"precious"


# ---- studio


def test_the_studios_own_options_and_mistakes_are_the_apps(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "studio"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0
    assert "--port" in shown.stdout
    assert "--auth" in shown.stdout
    wrong = subprocess.run([*command, "--auth", "nobody:secret"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "--auth takes a name alone" in wrong.stderr
    assert "secret" not in wrong.stderr


def assert_one_sentence(said: Said, expected: str) -> None:
    """Exit code 2, and on standard error one line with what was expected."""
    assert said.code == 2, said.out
    (line,) = said.err.splitlines()
    assert line.startswith("patina: ")
    assert expected in line


def distance(one: Image.Image, other: Image.Image) -> float:
    pairs = zip(one.tobytes(), other.tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / (one.width * one.height)


def png_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is and brings hardly any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    from trainer.safetensors_file import write

    write(path, {name: torch.ones(shape) for name, shape in shapes.items()}, {})

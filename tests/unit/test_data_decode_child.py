"""A file that harms its decoder costs one file."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from trainer.data import decode_child
from trainer.data.decode_child import reencode_many, reencode_safely
from trainer.data.images import ImageFacts, open_image
from trainer.errors import ConfigError, ImageError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the memory limit holds on Linux")


def make_image(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    Image.new("RGB", size, (10, 200, 30)).save(path)
    return path


def announcing(path: Path, width: int, height: int) -> Path:
    """A small PNG whose header announces another size."""
    data = bytearray(make_image(path).read_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def serve_with(code: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Children run `code` before they start to serve, as a decoder with a fault would."""
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


HARMFUL = """
import ctypes, os, sys, time
from PIL import Image
opened = Image.open
def open_harmfully(path, *args, **kwargs):
    name = os.path.basename(path)
    if name == "crash.png":
        ctypes.string_at(0)
    if name == "sleep.png":
        time.sleep(600)
    if name == "chatter.png":
        print("chatter", flush=True)
        os.write(1, b"more chatter")
    return opened(path, *args, **kwargs)
Image.open = open_harmfully
"""


def test_a_good_upload_is_copied_and_described(tmp_path: Path) -> None:
    facts = reencode_safely(make_image(tmp_path / "a.jpg"), tmp_path / "b.png", max_side=20)
    assert facts == ImageFacts(40, 30, "JPEG", "RGB", False, False, False)
    assert open_image(tmp_path / "b.png").size == (20, 15)


def test_a_bad_upload_is_an_image_error_with_the_reason(tmp_path: Path) -> None:
    giant = announcing(tmp_path / "a.png", 30_000, 30_000)
    with pytest.raises(ImageError, match="more than 100 million pixels"):
        reencode_safely(giant, tmp_path / "b.png", max_side=20)
    assert not (tmp_path / "b.png").exists()


@on_linux
def test_an_image_beyond_the_memory_limit_is_refused_and_the_next_one_is_served(
    tmp_path: Path,
) -> None:
    # 392 MB once decoded, within the limit on pixels.
    large = announcing(tmp_path / "large.png", 9_900, 9_900)
    pairs = [(large, tmp_path / "1.png"), (make_image(tmp_path / "a.png"), tmp_path / "2.png")]
    first, second = reencode_many(pairs, max_side=20, memory_mib=300)
    assert isinstance(first, ImageError)
    assert "large.png needs more memory" in str(first)
    assert isinstance(second, ImageFacts)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("crash.png", "crash.png could not be opened"), ("sleep.png", "sleep.png takes longer than 2")],
)
def test_a_decoder_that_dies_or_hangs_costs_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    serve_with(HARMFUL, monkeypatch, site)
    names = ["a.png", name, "b.png", "c.png"]
    pairs = [(make_image(tmp_path / n), tmp_path / "out" / n) for n in names]
    (tmp_path / "out").mkdir()
    results = list(reencode_many(pairs, max_side=20, seconds=2))
    assert isinstance(results[1], ImageError)
    assert reason in str(results[1])
    assert all(isinstance(results[i], ImageFacts) for i in (0, 2, 3))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png", "c.png"]


def test_what_a_library_prints_does_not_break_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    serve_with(HARMFUL, monkeypatch, site)
    facts = reencode_safely(make_image(tmp_path / "chatter.png"), tmp_path / "b.png", max_side=20)
    assert facts.width == 40


def test_many_files_share_one_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    popen = subprocess.Popen

    def counting(*args: object, **kwargs: object) -> object:
        started.append(args)
        return popen(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(decode_child.subprocess, "Popen", counting)
    (tmp_path / "bad.png").write_bytes(b"")
    sources = [make_image(tmp_path / "a.png"), tmp_path / "bad.png", make_image(tmp_path / "c.png")]
    pairs = [(src, tmp_path / f"{i}.webp") for i, src in enumerate(sources)]
    results = list(reencode_many(pairs, max_side=20))
    assert [type(r) for r in results] == [ImageFacts, ImageError, ImageFacts]
    assert len(started) == 1


def test_stopping_in_the_middle_ends_the_child(tmp_path: Path) -> None:
    source = make_image(tmp_path / "a.png")
    results = reencode_many([(source, tmp_path / f"{i}.png") for i in range(3)], max_side=20)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert (tmp_path / "0.png").exists()
    assert not (tmp_path / "1.png").exists()


def test_a_wrong_background_is_said_once_and_not_of_every_image(tmp_path: Path) -> None:
    source = make_image(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"data\.background"):
        reencode_safely(source, tmp_path / "b.png", max_side=20, background="bleu")


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot exist there")
def test_odd_file_names_pass_through_unharmed(tmp_path: Path) -> None:
    source = make_image(tmp_path / 'ä "q"\n[1].png')
    copy = tmp_path / 'copy of "q"\n[1].png'
    assert reencode_safely(source, copy, max_side=20).width == 40
    assert copy.exists()


def test_the_child_ends_when_its_parent_does_and_never_loads_torch() -> None:
    code = (
        "import sys; import trainer.data.decode_child; "
        "print([m for m in ('torch', 'numpy', 'diffusers', 'gradio') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
    ended = subprocess.run(
        [sys.executable, "-m", "trainer.data.decode_child", "1024"],
        input="",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [{"ready": True}]

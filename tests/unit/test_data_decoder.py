"""A file that harms its decoder costs one file, and the decoder itself can reach nothing."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from trainer import child
from trainer.data import decoder as decoding
from trainer.data.decoder import Decoder, Seen, Source
from trainer.data.images import ImageFacts, decode
from trainer.errors import ConfigError, ImageError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits hold on Linux")


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


def look(path: Path, decoder: Decoder) -> Seen | ImageError:
    try:
        return decoder.look(Source.read(path))
    except ImageError as error:
        return error


HARMFUL = """
import ctypes, io, os, socket, subprocess, sys, time
from PIL import Image
opened = Image.open
SECRET = os.environ.get("SECRET", "")
def open_harmfully(file, *args, **kwargs):
    # The words after the picture's own bytes say what a fooled decoder does.
    wish = file.getvalue().partition(b"WISH ")[2].decode()
    if wish == "crash":
        ctypes.string_at(0)
    if wish == "sleep":
        time.sleep(600)
    if wish == "spin":
        while True: pass
    if wish == "chatter":
        print("chatter", flush=True)
        os.write(1, b"more chatter")
    if wish == "lie":
        os.write(lying, b'{"facts": {"width": "<script>"}, "bytes": 0}\\n')
    if wish == "flood":
        os.write(lying, b'{"bytes": 99999999999}\\n' + b"x" * 60000)
    for name, act in {
        "read": lambda: open(SECRET),
        "write": lambda: open(SECRET + ".new", "w"),
        "list": lambda: os.listdir("/"),
        "connect": lambda: socket.socket().connect(("127.0.0.1", 9)),
        "start": lambda: subprocess.run(["true"]),
        "fork": os.fork,
        "signal": lambda: os.kill(os.getppid(), 0),
    }.items():
        if wish == name:
            try:
                act()
            except OSError as error:
                raise ValueError(f"refused: {type(error).__name__}")
            raise ValueError("it worked")
    return opened(file, *args, **kwargs)
Image.open = open_harmfully
lying = 3
if sys.argv[0] == "-m":
    dup = os.dup
    def remember(fd):
        global lying
        lying = dup(fd)
        return lying
    os.dup = remember
"""


@pytest.fixture
def harmful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for images; the child's decoder does what is written behind an image's last byte."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HARMFUL)
    monkeypatch.setenv("PYTHONPATH", str(site))
    secret = tmp_path / "secret"
    secret.write_text("secret")
    monkeypatch.setenv("SECRET", str(secret))
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def wishing(path: Path, wish: str) -> Path:
    make_image(path)
    path.write_bytes(path.read_bytes() + b"WISH " + wish.encode())
    return path


def test_a_good_file_is_described(tmp_path: Path) -> None:
    with Decoder() as decoder:
        seen = decoder.look(Source.read(make_image(tmp_path / "a.jpg")))
    assert seen.facts == ImageFacts(40, 30, "JPEG", "RGB", False, False, False)


def test_the_child_makes_the_same_pixels_as_this_process(tmp_path: Path, sample_data_dir: Path, fixtures: Path) -> None:
    picture = next(path for path in sorted(sample_data_dir.rglob("*.png")) if "sheets" not in path.parts)
    for path in (picture, fixtures / "turned.heic"):
        source = Source.read(path)
        here = decode(source.data, source.name).image
        box = (3, 2, here.width - 4, here.height - 1)
        with Decoder() as decoder:
            copy, seen = decoder.copy(source, max_side=10_000)
            part, facts = decoder.picture(source, crop=box, size=(32, 24))
        assert copy.tobytes() == here.tobytes()
        assert part.tobytes() == here.crop(box).resize((32, 24), Image.Resampling.LANCZOS).tobytes()
        assert seen.facts == facts


def test_a_bad_file_is_an_image_error_with_the_reason(tmp_path: Path) -> None:
    giant = announcing(tmp_path / "a.png", 30_000, 30_000)
    with Decoder() as decoder, pytest.raises(ImageError, match="more than 100 million pixels"):
        decoder.look(Source.read(giant))


@on_linux
def test_an_image_beyond_the_memory_limit_is_refused_and_the_next_one_is_served(tmp_path: Path) -> None:
    # 392 MB once decoded, within the limit on pixels.
    large = announcing(tmp_path / "large.png", 9_900, 9_900)
    with Decoder(memory_mib=300) as decoder:
        first, second = look(large, decoder), look(make_image(tmp_path / "a.png"), decoder)
    assert isinstance(first, ImageError)
    assert "large.png needs more memory" in str(first)
    assert isinstance(second, Seen)


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ("crash", "bad.png could not be opened"),
        ("sleep", "bad.png takes longer than 2 s"),
        ("spin", "bad.png takes longer than 2 s"),
        ("lie", "bad.png could not be opened"),
        ("flood", "bad.png could not be opened"),
    ],
)
def test_a_decoder_that_dies_hangs_or_lies_costs_one_file(harmful: Path, wish: str, reason: str) -> None:
    with Decoder(seconds=2) as decoder:
        files = [make_image(harmful / "a.png"), wishing(harmful / "bad.png", wish), make_image(harmful / "b.png")]
        first, bad, last = (look(file, decoder) for file in files)
    assert isinstance(first, Seen)
    assert isinstance(last, Seen)
    assert isinstance(bad, ImageError)
    assert reason in str(bad)


@on_linux
@pytest.mark.parametrize("wish", ["read", "write", "list", "connect", "start", "fork", "signal"])
def test_a_decoder_that_is_fooled_can_reach_nothing(harmful: Path, wish: str) -> None:
    with Decoder() as decoder:
        said = look(wishing(harmful / "bad.png", wish), decoder)
    assert isinstance(said, ImageError)
    assert "refused: PermissionError" in str(said)
    assert sorted(path.name for path in harmful.parent.iterdir()) == ["images", "secret", "site"]


def test_what_a_library_prints_does_not_break_the_protocol(harmful: Path) -> None:
    with Decoder() as decoder:
        assert isinstance(look(wishing(harmful / "a.png", "chatter"), decoder), Seen)


def test_many_files_share_one_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def counting(*args: str, **options: object) -> object:
        started.append(args)
        return start(*args, **options)

    start = child.start
    monkeypatch.setattr(decoding.child, "start", counting)
    (tmp_path / "bad.png").write_bytes(b"")
    with Decoder() as decoder:
        files = [make_image(tmp_path / "a.png"), tmp_path / "bad.png", make_image(tmp_path / "c.png")]
        assert [type(look(file, decoder)) for file in files] == [Seen, ImageError, Seen]
    assert len(started) == 1


def test_a_decoder_that_was_asked_nothing_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding.child, "start", None)
    with Decoder():
        pass


def test_a_wrong_background_is_said_once_and_not_of_every_image() -> None:
    with pytest.raises(ConfigError, match=r"data\.background"):
        Decoder(background="bleu")


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot exist there")
def test_odd_file_names_pass_through_unharmed(tmp_path: Path) -> None:
    source = Source.read(make_image(tmp_path / 'ä "q"\n[1].png'))
    with Decoder() as decoder:
        assert decoder.look(source).facts.width == 40


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif", ".gif"])
def test_a_copy_is_upright_exact_and_without_anything_the_camera_wrote(tmp_path: Path, source: str) -> None:
    path = tmp_path / f"src{source}"
    tags = Image.Exif()
    tags[0x0112] = 6
    tags[0x010F] = tags[0x010E] = "telltale"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "telltale")
    options: dict[str, object] = {"exif": tags, "comment": b"telltale"}
    if source == ".png":
        options |= {"pnginfo": text, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    if source == ".tif":
        del options["comment"]
    image = Image.new("RGB", (60, 40), "blue")
    image.paste("red", (0, 0, 30, 20))
    image.save(path, **options)
    assert b"telltale" in path.read_bytes()
    with Decoder() as decoder:
        copy, seen = decoder.copy(Source.read(path), max_side=1000)
    assert copy.tobytes() == decode(path.read_bytes(), path.name).image.tobytes()
    assert copy.size == ((60, 40) if source == ".gif" else (40, 60)), "a GIF has no place for an orientation"
    assert copy.info == {}
    written = io.BytesIO()
    copy.save(written, "PNG")
    assert b"telltale" not in written.getvalue()
    assert (seen.facts.width, seen.facts.height) == copy.size


def test_a_copy_is_shrunk_to_the_longest_side_and_never_enlarged(tmp_path: Path) -> None:
    source = Source.read(make_image(tmp_path / "a.png", (60, 40)))
    with Decoder() as decoder:
        small, seen = decoder.copy(source, max_side=30)
        whole, _ = decoder.copy(source, max_side=100)
    assert (small.size, whole.size) == ((30, 20), (60, 40))
    assert (seen.facts.width, seen.facts.height) == (60, 40)


def test_what_is_no_file_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"gone\.png is not there any more"):
        Source.read(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=r"folder\.png is no file"):
        Source.read(tmp_path / "folder.png")
    monkeypatch.setattr(decoding, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match=r"a\.png is larger than .* MiB"):
        Source.read(make_image(tmp_path / "a.png"))


def test_the_child_ends_when_its_parent_does_and_never_loads_torch() -> None:
    code = (
        "import sys; import trainer.data.decoder_child; trainer.data.decoder_child.warm_up()\n"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'diffusers', 'gradio') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
    ended = subprocess.run(
        [sys.executable, "-m", "trainer.data.decoder_child", "1024"],
        input=b"",
        capture_output=True,
        check=True,
        timeout=60,
    )
    (ready,) = ended.stdout.splitlines()
    expected = "sealed" if sys.platform == "linux" else "limited" if sys.platform == "darwin" else "apart"
    assert json.loads(ready) == {"sandbox": expected, "bytes": 0}


def test_threads_of_a_child_wait_briefly_unless_the_user_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert child.environment()["GOMP_SPINCOUNT"] == child.SPINS
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in child.environment()

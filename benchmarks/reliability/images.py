"""Malformed and mutated images of every format, as uploads are read and as the command line reads a folder."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import psutil
from PIL import Image, ImageDraw

from benchmarks.reliability.rows import Row
from trainer.data.decoder import Decoder, Source
from trainer.errors import ImageError

SECONDS = 10.0
MEMORY_BYTES = 2**30


def mutated_images(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """Each is decoded or refused with a sentence; a child that is lost costs that one file."""
    chance = random.Random(seed)
    originals = honest_images()
    with Decoder() as decoder:
        for trial in range(count):
            kind = chance.choice(list(originals))
            how = chance.choice(list(MUTATIONS))
            data = MUTATIONS[how](chance, originals[kind])
            source = Source(f"{trial}.{kind}", data)
            began, trouble = time.monotonic(), ""
            child = decoder._child
            try:
                if trial % 2:
                    decoder.copy(source, max_side=2048)
                else:
                    decoder.look(source)
                row.add("decoded")
            except ImageError as error:
                row.add("refused")
                if not 10 < len(str(error)) < 600:
                    trouble = f"a strange sentence: {error}"
            except Exception as error:
                trouble = f"{type(error).__name__}: {error}"
            took = time.monotonic() - began
            row.most("slowest_seconds", took)
            if took > SECONDS:
                trouble = trouble or f"took {took:.1f} s"
            if child is not None and decoder._child is not child:
                row.add("children_lost")
            if trial % 50 == 49 and decoder._child is not None:
                peak = _peak(decoder._child._process.pid)
                row.most("peak_mib", round(peak / 2**20))
                if peak > MEMORY_BYTES:
                    trouble = trouble or f"the child took {peak / 2**20:.0f} MiB"
            if trouble:
                (folder.parent / f"failed-{trial}.{kind}").write_bytes(data)
            row.count(trouble and f"trial {trial} ({kind}, {how}): {trouble}")


def _peak(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return int(psutil.Process(pid).memory_info().rss)
    except (OSError, psutil.Error):
        return 0


def honest_images() -> dict[str, bytes]:
    """A good file of each format and of its less usual kinds."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    picture = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(picture).ellipse((10, 5, 80, 60), fill=(200, 90, 30), outline="black", width=3)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    exif = Image.Exif()
    exif[0x0112] = 6

    def saved(image: Image.Image, kind: str, **more: object) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **more)
        return file.getvalue()

    made = {
        "png": saved(clear, "PNG"),
        "interlaced.png": saved(picture.quantize(16), "PNG", bits=4),
        "16.png": saved(Image.linear_gradient("L").convert("I;16"), "PNG"),
        "jpg": saved(picture, "JPEG", exif=exif),
        "progressive.jpg": saved(picture.convert("CMYK"), "JPEG", progressive=True),
        "webp": saved(clear, "WEBP", lossless=True),
        "animated.webp": saved(picture, "WEBP", save_all=True, append_images=[clear.convert("RGB")]),
        "gif": saved(picture.quantize(8), "GIF", save_all=True, append_images=[picture.quantize(4)]),
        "bmp": saved(picture, "BMP"),
        "tif": saved(clear, "TIFF", compression="tiff_lzw", exif=exif),
        "deflate.tif": saved(picture, "TIFF", compression="tiff_adobe_deflate"),
        "fax.tif": saved(picture.convert("1"), "TIFF", compression="group4"),
        "jpeg.tif": saved(picture, "TIFF", compression="jpeg"),
    }
    try:
        made["heic"] = saved(picture, "HEIF", quality=50)
    except (OSError, RuntimeError, ValueError, KeyError):
        turned = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "turned.heic"
        if turned.is_file():
            made["heic"] = turned.read_bytes()
    return made


# ---- mutations


def _bits(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    near = min(len(changed), 200) if chance.random() < 0.5 else len(changed)
    for _ in range(chance.choice((1, 2, 8, 40))):
        changed[chance.randrange(near)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _extremes(chance: random.Random, data: bytes) -> bytes:
    """Sizes and counts become extreme: two or four bytes at a time."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 5))):
        value = chance.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65500))
        raw = struct.pack(chance.choice(("<H", ">H") if value < 65536 else ("<I", ">I")), value)
        place = chance.randrange(max(1, min(len(changed), 300) - 4))
        changed[place : place + len(raw)] = raw
    return bytes(changed)


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _longer(chance: random.Random, data: bytes) -> bytes:
    return data + chance.choice((b"\0", data, chance.randbytes(500), b"<script>alert(1)</script>"))


def _pieces(chance: random.Random, data: bytes) -> bytes:
    """Pieces are left out, doubled or moved."""
    start, stop = sorted(chance.randrange(len(data)) for _ in range(2))
    target = chance.randrange(len(data))
    piece = data[start:stop]
    return chance.choice(
        (data[:start] + data[stop:], data[:stop] + piece + data[stop:], data[:target] + piece + data[target:])
    )


def _random(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.choice((4, 12, 40))] + chance.randbytes(chance.randrange(1500))


def _nothing(chance: random.Random, data: bytes) -> bytes:
    return data


def _bomb(chance: random.Random, data: bytes) -> bytes:
    """A PNG of sides and depth that promise far more than it holds, with checksums that are right."""
    sides = chance.choice(
        ((1, 1), (60_000, 60_000), (2**31 - 1, 1), (0, 5), (9_000, 9_000), (100_000, 900), (3, 2**31))
    )
    header = struct.pack(
        ">IIBBBBB", *sides, chance.choice((1, 8, 16)), chance.choice((0, 2, 3, 6, 7)), 0, 0, chance.choice((0, 1))
    )
    rows = zlib.compress(bytes(chance.choice((10, 10_000, 3_000_000))), 9)
    text = zlib.compress(b"a" * 5_000_000, 9)
    chunks = [(b"IHDR", header), (b"zTXt", b"k\0\0" + text), (b"IDAT", rows), (b"IEND", b"")]
    if chance.random() < 0.3:
        chunks.insert(1, (b"iCCP", b"p\0\0" + text))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _checked(chance: random.Random, data: bytes) -> bytes:
    """Changed inside, where the format has checksums they are put right, so that the change reaches the decoder."""
    changed = bytearray(_bits(chance, data))
    if not data.startswith(b"\x89PNG"):
        return bytes(changed)
    place = 8
    while place + 12 <= len(changed):
        (length,) = struct.unpack(">I", changed[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = struct.pack(">I", zlib.crc32(changed[place + 4 : end]))
        place = end + 4
    return bytes(changed)


MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bits": _bits,
    "extremes": _extremes,
    "cut": _cut,
    "longer": _longer,
    "pieces": _pieces,
    "random": _random,
    "nothing": _nothing,
    "bomb": _bomb,
    "checked": _checked,
}

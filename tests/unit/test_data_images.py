"""Files of every sort become upright RGB, or an ImageError that says why not."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageFile

from trainer.data.images import Decoded, ImageFacts, background_colour, decode
from trainer.errors import ConfigError, ImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def read(path: Path, **options: Any) -> Decoded:
    return decode(path.read_bytes(), path.name, **options)


def open_image(path: Path, **options: Any) -> Image.Image:
    return read(path, **options).image


def facts_of(path: Path) -> ImageFacts:
    return read(path).facts


def near(image: Image.Image, at: tuple[int, int], colour: tuple[int, ...], within: int = 3) -> bool:
    pixel = image.getpixel(at)
    assert isinstance(pixel, tuple)
    return all(abs(a - b) <= within for a, b in zip(pixel, colour, strict=True))


def corner_image() -> Image.Image:
    """60 x 40, red in its upper left quarter, blue elsewhere."""
    image = Image.new("RGB", (60, 40), BLUE)
    image.paste(RED, (0, 0, 30, 20))
    return image


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


# Where the stored upper left corner is seen, as (right?, bottom?), and whether sides are swapped.
SEEN = {
    1: ((False, False), False),
    2: ((True, False), False),
    3: ((True, True), False),
    4: ((False, True), False),
    5: ((False, False), True),
    6: ((True, False), True),
    7: ((True, True), True),
    8: ((False, True), True),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", SEEN)
def test_an_image_is_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    options = {"quality": 95} if suffix in (".jpg", ".webp") else {}
    corner_image().save(path, exif=exif(orientation), **options)
    (right, bottom), swapped = SEEN[orientation]
    decoded = read(path)
    assert decoded.image.size == ((40, 60) if swapped else (60, 40))
    assert (decoded.facts.width, decoded.facts.height) == decoded.image.size
    assert decoded.facts.rotated == (orientation != 1)
    width, height = decoded.image.size
    red_at = (width - 5 if right else 5, height - 5 if bottom else 5)
    assert near(decoded.image, red_at, RED, within=30)
    assert near(decoded.image, (width - red_at[0], height - red_at[1]), BLUE, within=30)


def test_broken_exif_data_do_not_cost_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    corner_image().save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xfe" * 40)
    assert open_image(path).size == (60, 40)
    assert not facts_of(path).rotated


def test_alpha_is_laid_over_the_background(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = Image.new("RGBA", (4, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (255, 0, 0, 128))
    image.save(path)
    over_white = open_image(path)
    assert over_white.mode == "RGB"
    assert near(over_white, (0, 0), RED)
    assert near(over_white, (1, 0), WHITE)
    assert near(over_white, (2, 0), (255, 127, 127))
    assert near(open_image(path, background="#0000ff"), (1, 0), BLUE)
    assert read(path).facts.transparent


def test_an_alpha_channel_that_is_not_used_is_not_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(path)
    assert not read(path).facts.transparent
    assert near(open_image(path), (0, 0), (1, 2, 3), within=0)


def test_a_palette_keeps_its_colours_and_its_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    plain, one, several = tmp_path / "p.png", tmp_path / "one.png", tmp_path / "several.png"
    image.save(plain)
    image.save(one, transparency=1)
    image.save(several, transparency=bytes([255, 0, 128]))
    assert [open_image(plain).getpixel((x, 0)) for x in range(3)] == [RED, GREEN, BLUE]
    assert [open_image(one).getpixel((x, 0)) for x in range(3)] == [RED, WHITE, BLUE]
    assert near(open_image(several), (2, 0), (127, 127, 255))
    assert not read(plain).facts.transparent
    assert read(several).facts.transparent


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_images_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.new(mode, (2, 2), {"L": 255, "LA": (255, 0), "1": 1}[mode]).save(path)
    assert open_image(path).getpixel((0, 0)) == WHITE


def deep_grey(mode: str, values: list[int]) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    deep_grey("I;16", [0, 257, 32768, 65535]).save(path)
    assert facts_of(path).mode.startswith("I")
    image = open_image(path)
    assert [image.getpixel((x, 0)) for x in range(4)] == [
        (0, 0, 0),
        (1, 1, 1),
        (128, 128, 128),
        WHITE,
    ]


def test_32_bit_and_float_greys_are_scaled(tmp_path: Path) -> None:
    wide, floats = tmp_path / "wide.tif", tmp_path / "floats.tif"
    deep_grey("I", [0, 65535]).save(wide)
    image = Image.new("F", (2, 1))
    image.putpixel((1, 0), 0.5)
    image.save(floats)
    assert open_image(wide).getpixel((1, 0)) == WHITE
    assert open_image(floats).getpixel((1, 0)) == (128, 128, 128)


def test_float_values_that_are_not_finite_are_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("F", (2, 2), float("inf")).save(path)
    with pytest.raises(ImageError, match=r"a\.tif.*not finite"):
        open_image(path)


def test_cmyk_is_seen_in_the_right_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)
    assert facts_of(path).mode == "CMYK"
    assert near(open_image(path), (8, 8), RED, within=10)


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    plain, tagged = tmp_path / "plain.tif", tmp_path / "tagged.tif"
    rgb = Image.new("RGB", (2, 2), (200, 30, 30))
    as_lab = ImageCms.profileToProfile(rgb, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    assert as_lab is not None
    as_lab.save(tagged)
    rgb.save(plain)
    assert near(open_image(tagged), (0, 0), (200, 30, 30), within=4)


def swapped_primaries_profile() -> bytes:
    """An sRGB profile whose red and green colorants are exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    for entry in range(132, 132 + 12 * count, 12):
        tag = bytes(data[entry : entry + 4])
        if tag in (b"rXYZ", b"gXYZ"):
            data[entry : entry + 4] = b"gXYZ" if tag == b"rXYZ" else b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_an_rgb_profile_is_converted_to_srgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4), RED).convert(mode).save(path, icc_profile=swapped_primaries_profile())
    image = open_image(path)
    assert near(image, (0, 0), GREEN, within=6)
    assert "icc_profile" not in image.info


def test_a_broken_profile_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4), RED).save(path, icc_profile=b"no profile" * 30)
    assert open_image(path).getpixel((0, 0)) == RED


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_the_first_frame_of_an_animation_is_used(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    first.save(path, save_all=True, append_images=[second], **options)
    assert facts_of(path).animated
    assert near(open_image(path), (4, 4), RED)


def test_the_second_lens_of_a_phone_is_no_animation(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    first.save(path, format="MPO", save_all=True, append_images=[second])
    facts = facts_of(path)
    assert (facts.format, facts.animated) == ("JPEG", False)
    assert near(open_image(path), (4, 4), RED)


def saved(suffix: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.radial_gradient("L").convert("RGB")
    image.save(buffer, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()), **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".gif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_an_image_error(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    data = saved(suffix)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=rf"^cut\{suffix} is cut short"):
        open_image(path)


def test_a_damaged_chunk_is_an_image_error(tmp_path: Path) -> None:
    data = bytearray(saved(".png"))
    data[1000:1020] = b"\xff" * 20
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"^a\.png is cut short or damaged"):
        open_image(tmp_path / "a.png")


def giant_png(width: int, height: int) -> bytes:
    """A PNG whose header announces a size that its few bytes of data do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [30_000, 11_000])
def test_a_giant_image_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "giant.png"
    path.write_bytes(giant_png(side, side))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"^giant\.png has more than 100 million pixels"):
            open_image(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_limit_on_pixels_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 100)).save(path)
    assert open_image(path, max_pixels=10_000).size == (100, 100)
    with pytest.raises(ImageError, match="more than"):
        open_image(path, max_pixels=9_999)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"", r"^a\.png is empty \(0 bytes\)"),
        ("a.png", b"hello, this is text\n" * 40, r"^a\.png is a text file"),
        ("a.png", "Grüße und Küsse\n".encode() * 60, r"^a\.png is a text file"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, r"^a\.png is cut short or damaged"),
        ("a.jpg", bytes(range(256)) * 4, r"^a\.jpg is not an image that can be read"),
        ("a.heic", b"\0\0\0\x18ftypheic", r"^a\.heic is cut short or damaged"),
        ("a.jpg", b"\0\0\0\x18ftypheic" + b"\0" * 99, r"^a\.jpg is cut short or damaged"),
        ("a.png", b"\0\0\0\x18ftypisom" + b"\0" * 99, r"^a\.png is a film"),
        ("a.png", b"\0\0\0\x1cftypavif" + b"\0" * 99, r"^a\.png is in AVIF format"),
        ("a.svg", b"<svg/>", r"^a\.svg is in SVG format"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"^a\.png is a text"),
    ],
)
def test_what_is_no_usable_image_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        open_image(tmp_path / name)


def test_a_format_outside_the_list_is_refused_whatever_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", format="TGA")
    with pytest.raises(ImageError, match="not an image that can be read"):
        open_image(tmp_path / "a.png")


def test_an_iphone_photo_is_read_and_turned_upright(fixtures: Path) -> None:
    """Stored 60 x 40 with its left third red; the camera was held sideways."""
    decoded = read(fixtures / "turned.heic")
    assert decoded.image.size == (40, 60)
    assert decoded.facts.format == "HEIF"
    assert near(decoded.image, (5, 5), RED, within=8)
    assert near(decoded.image, (35, 5), RED, within=8)
    assert near(decoded.image, (5, 55), WHITE, within=8)


def test_an_iphone_photo_cut_short_is_an_image_error(fixtures: Path) -> None:
    data = (fixtures / "turned.heic").read_bytes()
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(ImageError, match=r"^a\.heic is cut short or damaged"):
            decode(data[: int(len(data) * share)], "a.heic")


@pytest.mark.parametrize("colour", ["blue", "#00f", "#0000ff", "rgb(0,0,255)", " Blue "])
def test_any_css_colour_is_a_background(colour: str) -> None:
    assert background_colour(colour) == BLUE


def test_an_unknown_colour_names_the_field_and_the_value(tmp_path: Path) -> None:
    corner_image().save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"data\.background: 'bleu' is not a colour"):
        open_image(tmp_path / "a.png", background="bleu")


def test_pillows_global_switches_are_left_alone(tmp_path: Path) -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    (tmp_path / "cut.jpg").write_bytes(saved(".jpg")[:500])
    with pytest.raises(ImageError):
        open_image(tmp_path / "cut.jpg")
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES

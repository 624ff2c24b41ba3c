"""Opening image files that nobody vouches for: checked from the header first, then made upright RGB.

Nothing here changes Pillow's global switches. Sizes are (width, height) in pixels.
"""

from __future__ import annotations

import codecs
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import ExifTags, Image, ImageCms, ImageColor, UnidentifiedImageError

from trainer.atomic import replace_file
from trainer.errors import ConfigError, ImageError, PatinaError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What Pillow may try to read; its other readers are older and seldom used, so seldom hardened."""

READABLE_SUFFIXES = frozenset({".apng", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
REFUSED_SUFFIXES = frozenset(
    {".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".tga", ".xcf"}
    | {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}
)
IMAGE_SUFFIXES = READABLE_SUFFIXES | REFUSED_SUFFIXES
"""Files that somebody means as images: others in a folder are passed over without a word."""

MAX_PIXELS = 100_000_000
"""Largest image that is decoded: a medium-format camera's, 400 MB as Pillow keeps it."""

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class ImageFacts:
    """What an image file is, before anything is done to it.

    `width` and `height` are those of the upright image; `mode` is Pillow's. `transparent` means
    that the file has an alpha channel or a transparent colour, used or not.
    """

    width: int
    height: int
    format: str
    mode: str
    rotated: bool
    animated: bool
    transparent: bool


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image and what its file was; `facts.transparent` tells of alpha in use."""

    image: Image.Image
    facts: ImageFacts


def open_image(path: Path, *, background: str = "white", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The file's (first) picture, upright, in sRGB, transparency laid over `background`.

    Raises:
        ImageError: the file cannot be used; the message says why and what to do.
        ConfigError: `background` is no colour.
    """
    return decode(path, background=background, max_pixels=max_pixels).image


def decode(path: Path, *, background: str = "white", max_pixels: int = MAX_PIXELS) -> Decoded:
    """As `open_image`, with the facts about the file.

    Raises:
        ImageError, ConfigError: as `open_image`.
    """
    colour = background_colour(background)
    with _reading(path, max_pixels) as image:
        facts = _facts(image)
        image.load()
        # Pillow turns a TIFF upright while loading it and forgets the tag; other formats keep it.
        left_to_do = _TRANSPOSE.get(_orientation(image))
        rgb, transparent = _to_rgb(image, colour)
        upright = rgb if left_to_do is None else rgb.transpose(left_to_do)
    upright.info = {}
    facts = ImageFacts(
        width=upright.width,
        height=upright.height,
        format=facts.format,
        mode=facts.mode,
        rotated=facts.rotated or left_to_do is not None,
        animated=facts.animated,
        transparent=transparent,
    )
    return Decoded(upright, facts)


def image_facts(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """What the header says, without decoding the picture.

    Raises:
        ImageError: the header cannot be read or announces more than `max_pixels`.
    """
    with _reading(path, max_pixels) as image:
        return _facts(image)


def reencode(
    src: Path,
    dst: Path,
    *,
    max_side: int,
    background: str = "white",
    max_pixels: int = MAX_PIXELS,
) -> ImageFacts:
    """Write `src` as a clean picture: upright RGB, no metadata, longest side at most `max_side`.

    Args:
        dst: a `.png`, or a `.webp` (lossless); replaced in one step, so never half-written.

    Returns:
        The facts about `src`, with `width` and `height` as before shrinking.

    Raises:
        ImageError: `src` cannot be used, or `dst` cannot be written.
        ConfigError: `background` is no colour.
        ValueError: `dst` has another suffix.
    """
    options: dict[str, dict[str, Any]] = {
        ".png": {"format": "PNG"},
        ".webp": {"format": "WEBP", "lossless": True, "method": 2},
    }
    if dst.suffix.lower() not in options:
        raise ValueError(f"a clean copy is a .png or a .webp, not {dst.name}")
    decoded = decode(src, background=background, max_pixels=max_pixels)
    image = decoded.image
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    _write(image, dst, options[dst.suffix.lower()])
    return decoded.facts


def thumbnail(src: Path, dst: Path, *, side: int = 320, background: str = "white") -> None:
    """Write a small WEBP of `src`, at most `side` pixels each way, for tables and cards.

    Raises:
        ImageError, ConfigError: as `reencode`.
    """
    image = open_image(src, background=background)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    _write(image, dst, {"format": "WEBP", "quality": 85, "method": 4})


def background_colour(background: str) -> tuple[int, int, int]:
    """A CSS colour's red, green and blue, 0 to 255.

    Raises:
        ConfigError: it is no colour.
    """
    try:
        return ImageColor.getrgb(background.strip())[:3]
    except ValueError:
        raise ConfigError(
            f"data.background: {background!r} is not a colour; use a name such as white or a code such as #f5f5f5."
        ) from None


@contextmanager
def _reading(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The opened, checked, not yet decoded file; whatever goes wrong inside becomes an ImageError."""
    if path.suffix.lower() in REFUSED_SUFFIXES:
        raise ImageError(_refusal(path, path.suffix[1:].upper()))
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path.name} is empty (0 bytes): copy it again from its source.")
        with warnings.catch_warnings():
            # Pillow warns of what the checks here or the decoder's errors say better.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                pixels = image.width * image.height
                if pixels > max_pixels:
                    raise ImageError(_too_large(path, max_pixels))
                if pixels == 0:
                    raise ImageError(f"{path.name} has no pixels: leave it out.")
                yield image
    except PatinaError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(_too_large(path, max_pixels)) from None
    except MemoryError:
        raise ImageError(f"{path.name} needs more memory than there is to open it: make it smaller.") from None
    except FileNotFoundError:
        raise ImageError(f"{path.name} is not there any more: add it again.") from None
    except PermissionError:
        raise ImageError(f"{path.name} may not be read: check the file's permissions.") from None
    except UnidentifiedImageError:
        raise ImageError(_unidentified(path)) from None
    except Exception as error:
        # Pillow's readers raise nearly anything on a broken file: OSError, SyntaxError, ValueError,
        # struct.error, KeyError, zlib.error ...
        raise ImageError(f"{path.name} is cut short or damaged ({error}): copy or export it again.") from error


def _facts(image: Image.Image) -> ImageFacts:
    orientation = _orientation(image)
    width, height = image.size
    # A TIFF's size is told as it will be once loaded, that of other formats as it is stored.
    if orientation in _SIDEWAYS and image.format != "TIFF":
        width, height = height, width
    # Two-lens phones store a second view beside the photo (MPO): that is no animation.
    is_mpo = image.format == "MPO"
    return ImageFacts(
        width=width,
        height=height,
        format="JPEG" if is_mpo else str(image.format),
        mode=image.mode,
        rotated=orientation in _TRANSPOSE,
        animated=not is_mpo and bool(getattr(image, "is_animated", False)),
        transparent=image.has_transparency_data,
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 when there is none or when the EXIF data are broken."""
    try:
        # The base class's method: the PNG reader's own one decodes the whole picture first.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:
        # The tags are decoration; whatever is wrong with them, the picture may be fine.
        return 1


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> tuple[Image.Image, bool]:
    """The loaded picture as sRGB over the background, and whether any of it was transparent."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        return _to_8_bit(image).convert("RGB"), False
    if not image.has_transparency_data:
        return _to_srgb(image, profile), False
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    flat = Image.new("RGB", rgba.size, background)
    flat.paste(_to_srgb(rgba.convert("RGB"), profile), mask=alpha)
    return flat, cast("tuple[int, int]", alpha.getextrema())[0] < 255


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Deep greys as mode L. Pillow's own conversion would clip at 255 rather than scale."""
    wide = image.convert("F")
    low, high = cast("tuple[float, float]", wide.getextrema())
    if not (float("-inf") < low <= high < float("inf")):
        raise ValueError("its values are not finite")
    if image.mode == "F":
        full = 1.0 if high <= 1 else 255.0 if high <= 255 else 65535.0
    else:
        # Mode I holds 32 bits, but mostly carries a 16-bit file.
        full = 65535.0 if high <= 65535 else float(2**31 - 1)
    scale = 255.0 / full
    return wide.point(lambda value: value * scale + 0.5).convert("L")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converted by the embedded colour profile; a plain conversion without a usable one."""
    if image.mode == "LAB":
        return _transform(image, ImageCms.createProfile("LAB"))
    if image.mode in ("P", "PA", "1", "RGBX"):
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            return _transform(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError):
            # A broken or mismatched profile costs a shade of colour, not the picture.
            pass
    # Converting RGB to RGB would copy it, and a large photo is copied once more to turn it.
    return image if image.mode == "RGB" else image.convert("RGB")


def _transform(image: Image.Image, source: Any) -> Image.Image:
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return converted


def _unidentified(path: Path) -> str:
    """Why Pillow knew none of the formats: the commonest cases, told by the first bytes."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[4:8] == b"ftyp":
        return _refusal(path, "AVIF" if b"avif" in head[8:32] else "HEIC")
    if head.startswith(_SIGNATURES):
        return f"{path.name} is cut short or damaged: copy or export it again."
    if b"\0" not in head:
        try:
            # Not final: the 512 bytes may end within a character.
            codecs.getincrementaldecoder("utf-8")().decode(head)
        except UnicodeDecodeError:
            pass
        else:
            return f"{path.name} is a text file, not an image: replace it by the image."
    return f"{path.name} is not an image that can be read: save it as PNG or JPEG."


def _refusal(path: Path, kind: str) -> str:
    return f"{path.name} is in {kind} format, which Patina does not read: export it as JPEG or PNG."


def _too_large(path: Path, max_pixels: int) -> str:
    return f"{path.name} has more than {max_pixels // 1_000_000} million pixels: save a smaller copy of it."


def _write(image: Image.Image, dst: Path, options: dict[str, Any]) -> None:
    """Save beside `dst` and move into place."""
    try:
        replace_file(dst, lambda file: image.save(file, **options))
    except (OSError, ValueError, MemoryError) as error:
        raise ImageError(f"{dst.name} could not be written ({error}).") from error

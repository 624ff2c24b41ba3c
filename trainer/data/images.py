"""Image files that nobody vouches for: checked from the header first, then made upright RGB.

This runs in the decoder's child process (`trainer.data.decoder_child`); nobody else opens a stranger's image. Sizes are
(width, height) in pixels.
"""

from __future__ import annotations

import codecs
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Any, cast

from PIL import ExifTags, Image, ImageCms, ImageColor, UnidentifiedImageError

from trainer.data.suffixes import REFUSED_SUFFIXES
from trainer.errors import ConfigError, ImageError, PatinaError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "HEIF")
"""What Pillow may try to read; its other readers are older and seldom used, so seldom hardened."""

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
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class ImageFacts:
    """What an image file is, before anything is done to it.

    `width` and `height` are those of the upright image; `mode` is Pillow's. `transparent` tells of alpha in use.
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
    """An upright RGB image and what its file was."""

    image: Image.Image
    facts: ImageFacts


def decode(data: bytes, name: str, *, background: str = "white", max_pixels: int = MAX_PIXELS) -> Decoded:
    """A file's (first) picture, upright, in sRGB, transparency laid over `background`.

    Args:
        data: the file's bytes.
        name: what the file is called, for the message when it cannot be used.

    Raises:
        ImageError: the file cannot be used; the message says why and what to do.
        ConfigError: `background` is no colour.
    """
    colour = background_colour(background)
    with _reading(data, name, max_pixels) as image:
        is_turned = _orientation(image) in _TRANSPOSE
        image.load()
        # Pillow turns a TIFF upright while loading it and forgets the tag; other formats keep it.
        left_to_do = _TRANSPOSE.get(_orientation(image))
        rgb, transparent = _to_rgb(image, colour)
        upright = rgb if left_to_do is None else rgb.transpose(left_to_do)
    # Two-lens phones store a second view beside the photo (MPO): that is no animation.
    is_mpo = image.format == "MPO"
    upright.info = {}
    return Decoded(
        upright,
        ImageFacts(
            width=upright.width,
            height=upright.height,
            format="JPEG" if is_mpo else str(image.format),
            mode=image.mode,
            rotated=is_turned,
            animated=not is_mpo and bool(getattr(image, "is_animated", False)),
            transparent=transparent,
        ),
    )


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
def _reading(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """The opened, checked, not yet decoded file; whatever goes wrong inside becomes an ImageError."""
    suffix = PurePath(name).suffix.lower()
    if suffix in REFUSED_SUFFIXES:
        raise ImageError(_refusal(name, suffix[1:].upper()))
    if not data:
        raise ImageError(f"{name} is empty (0 bytes): copy it again from its source.")
    _know_heif()
    try:
        with warnings.catch_warnings():
            # Pillow warns of what the checks here or the decoder's errors say better.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                pixels = image.width * image.height
                if pixels > max_pixels:
                    raise ImageError(_too_large(name, max_pixels))
                if pixels == 0:
                    raise ImageError(f"{name} has no pixels: leave it out.")
                yield image
    except PatinaError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(_too_large(name, max_pixels)) from None
    except MemoryError:
        raise ImageError(f"{name} needs more memory than there is to open it: make it smaller.") from None
    except UnidentifiedImageError:
        raise ImageError(_unidentified(data[:512], name)) from None
    except Exception as error:
        # Pillow's readers raise nearly anything on a broken file: OSError, SyntaxError, ValueError,
        # struct.error, KeyError, zlib.error ...
        raise ImageError(f"{name} is cut short or damaged ({error}): copy or export it again.") from error


@cache
def _know_heif() -> None:
    """Give Pillow the reader of iPhone photos: the picture alone, in this thread."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


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


def _unidentified(head: bytes, name: str) -> str:
    """Why Pillow knew none of the formats: the commonest cases, told by the first bytes."""
    if head[4:8] == b"ftyp":
        brands = head[8:32]
        if b"avif" in brands or b"avis" in brands:
            return _refusal(name, "AVIF")
        if not any(brand in brands for brand in (b"heic", b"heix", b"mif1")):
            return f"{name} is a film, not an image: export one of its pictures as JPEG or PNG."
        return f"{name} is cut short or damaged: copy or export it again."
    if head.startswith(_SIGNATURES):
        return f"{name} is cut short or damaged: copy or export it again."
    if b"\0" not in head:
        try:
            # Not final: the 512 bytes may end within a character.
            codecs.getincrementaldecoder("utf-8")().decode(head)
        except UnicodeDecodeError:
            pass
        else:
            return f"{name} is a text file, not an image: replace it by the image."
    return f"{name} is not an image that can be read: save it as PNG or JPEG."


def _refusal(name: str, kind: str) -> str:
    return f"{name} is in {kind} format, which Patina does not read: export it as JPEG or PNG."


def _too_large(name: str, max_pixels: int) -> str:
    return f"{name} has more than {max_pixels // 1_000_000} million pixels: save a smaller copy of it."

"""What names of image files end in; apart from all else, because the child that decodes images loads little."""

from __future__ import annotations

READABLE_SUFFIXES = frozenset(
    {".apng", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
REFUSED_SUFFIXES = frozenset(
    {".avif", ".jp2", ".jxl", ".psd", ".svg", ".tga", ".xcf"}
    | {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}
)
IMAGE_SUFFIXES = READABLE_SUFFIXES | REFUSED_SUFFIXES
"""Files that somebody means as images: others in a folder are passed over without a word."""

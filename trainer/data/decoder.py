"""Decoding of images in a child process that is shut in, with a limit on memory and on time.

Image decoders are large C libraries that read bytes from anywhere. The child gets a file's bytes through a pipe and
gives back pixels: it opens no file itself (`trainer.sandbox` says what holds on which system), so that a decoder that
is fooled reads and writes nothing, and one that crashes, swallows all memory or never ends costs one file. One child
serves many files; after a loss the next file gets a new one.

A request is a line of JSON and the file's bytes behind it; a reply is a line of JSON and raw pixels, if any.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from trainer import child
from trainer.data.duplicates import FINGERPRINT_BYTES, Fingerprint
from trainer.data.images import FORMATS, MAX_PIXELS, ImageFacts, background_colour
from trainer.errors import ImageError
from trainer.printable import printable

START_SECONDS = 30.0
"""For a child to start up: Python and Pillow on a cold disk of a busy machine."""
MAX_BYTES = 256 * 2**20
"""Largest file that is read."""
MAX_LINE = 64 * 1024
MAX_MESSAGE = 500

Box = tuple[int, int, int, int]
Size = tuple[int, int]


@dataclass(frozen=True)
class Source:
    """The bytes of a file that may be an image."""

    name: str
    data: bytes

    @classmethod
    def read(cls, path: Path) -> Source:
        """The file as it is now.

        Raises:
            ImageError: it is not there, may not be read, is no file, or is too large to be an image.
        """
        name = path.name
        try:
            if not path.is_file():
                there = path.exists()
                raise ImageError(f"{name} is no file." if there else f"{name} is not there any more: add it again.")
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            if isinstance(error, PermissionError):
                raise ImageError(f"{name} may not be read: check the file's permissions.") from None
            raise ImageError(f"{name} cannot be read ({error.strerror or error}).") from error
        if len(data) > MAX_BYTES:
            raise ImageError(f"{name} is larger than {MAX_BYTES // 2**20} MiB: save a smaller copy of it.")
        return cls(name, data)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes, as hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Seen:
    """What a file is, and what it looks like."""

    facts: ImageFacts
    look: Fingerprint


class Decoder:
    """Decodes one file after another; to be closed, as a context manager is.

    Args:
        seconds: how long one file may take.
        memory_mib: address space of the child in MiB; Python and its libraries need about 150.
        background: colour that transparent images are laid over.

    Raises:
        ConfigError: `background` is no colour.
    """

    def __init__(self, *, seconds: float = 20, memory_mib: int = 1024, background: str = "white") -> None:
        background_colour(background)  # once here, rather than as an error of every image
        self._seconds, self._memory_mib, self._background = seconds, memory_mib, background
        self._child: _Child | None = None

    def look(self, source: Source) -> Seen:
        """The facts about an image and its fingerprint.

        Raises:
            ImageError: the file cannot be used, takes too long or needs too much memory.
        """
        reply, _ = self._ask(source, {"do": "look"})
        return _seen(reply, source.name)

    def picture(self, source: Source, *, crop: Box, size: Size) -> tuple[Image.Image, ImageFacts]:
        """A part of an image, scaled in one step by a Lanczos filter, which looks at every pixel (no aliasing).

        Args:
            crop: (left, top, right, bottom) in pixels of the upright image.
            size: (width, height) of the result.

        Raises:
            ImageError: as `look`.
        """
        reply, pixels = self._ask(source, {"do": "picture", "crop": crop, "size": size}, most=size)
        picture = _picture(reply, pixels, source.name)
        if picture.size != size:
            raise _lost(source.name)
        return picture, _seen(reply, source.name).facts

    def copy(self, source: Source, *, max_side: int) -> tuple[Image.Image, Seen]:
        """The whole image, its longest side at most `max_side` pixels; the look is that of this copy.

        Raises:
            ImageError: as `look`.
        """
        reply, pixels = self._ask(source, {"do": "copy", "max_side": max_side}, most=(max_side, max_side))
        return _picture(reply, pixels, source.name), _seen(reply, source.name)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, source: Source, request: dict[str, Any], *, most: Size = (0, 0)) -> tuple[dict[str, Any], bytes]:
        request |= {"name": source.name, "background": self._background, "seconds": self._seconds}
        if self._child is None:
            self._child = _Child(self._memory_mib)
        try:
            reply, pixels = self._child.ask(request, source, self._seconds, most[0] * most[1] * 3)
        except BaseException:
            # Lost, or left in the middle of an answer: either way it is of no more use.
            self.close()
            raise
        if "error" in reply:
            raise ImageError(printable(str(reply["error"]), MAX_MESSAGE))
        return reply, pixels


class _Child:
    """A running child process: one question at a time."""

    def __init__(self, memory_mib: int) -> None:
        self._process = child.start(
            "trainer.data.decoder_child",
            str(memory_mib),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._ready = False

    def ask(self, request: dict[str, Any], source: Source, seconds: float, most: int) -> tuple[dict[str, Any], bytes]:
        """The child's answer about one file, with at most `most` bytes of pixels.

        Raises:
            ImageError: it died, did not answer in time, or talks nonsense; it must be closed then.
        """
        name = source.name
        if not self._ready:
            with self._killed_after(START_SECONDS) as is_late:
                line = self._replies.readline(MAX_LINE)
            if not line:
                why = "did not start in time" if is_late.is_set() else "did not start"
                raise ImageError(f"{name} was not opened, because the program for it {why}: try again.")
            self._ready = True
        with self._killed_after(seconds) as is_late:
            with contextlib.suppress(OSError):  # a child that is gone is noticed by its silence
                self._requests.write(json.dumps(request | {"bytes": len(source.data)}).encode() + b"\n")
                self._requests.write(source.data)
                self._requests.flush()
            line = self._replies.readline(MAX_LINE)
            reply = _parsed(line)
            size = reply.get("bytes", 0) if reply is not None else -1
            pixels = self._replies.read(size) if isinstance(size, int) and 0 <= size <= most else None
        if is_late.is_set():
            raise ImageError(f"{name} takes longer than {seconds:g} s to open: save a smaller or simpler copy.")
        if reply is None or pixels is None or len(pixels) != size:
            raise _lost(name)
        return reply, pixels

    @contextlib.contextmanager
    def _killed_after(self, seconds: float) -> Iterator[threading.Event]:
        """End the child if the block takes longer, which ends whatever the block waits for; yields whether it was."""
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield is_late
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the child; at once, since it keeps nothing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._replies):
            with contextlib.suppress(OSError):
                pipe.close()


def _lost(name: str) -> ImageError:
    return ImageError(
        f"{name} could not be opened: it is damaged, or needs too much memory. Save a smaller copy of it."
    )


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def _seen(reply: dict[str, Any], name: str) -> Seen:
    """What a reply says of the file; a child that was fooled may say anything."""
    try:
        facts = ImageFacts(**reply["facts"])
        bits, colours = reply["look"]
        look = Fingerprint(int(bits) % 2**64, base64.b64decode(colours))
    except (KeyError, TypeError, ValueError):
        raise _lost(name) from None
    sides, flags = (facts.width, facts.height), (facts.rotated, facts.animated, facts.transparent)
    if (
        all(type(side) is int and 0 < side <= MAX_PIXELS for side in sides)
        and all(type(flag) is bool for flag in flags)
        and facts.format in FORMATS
        and re.fullmatch(r"[A-Za-z0-9;]{1,8}", str(facts.mode))
        and len(look.colours) == FINGERPRINT_BYTES
    ):
        return Seen(facts, look)
    raise _lost(name)


def _picture(reply: dict[str, Any], pixels: bytes, name: str) -> Image.Image:
    try:
        width, height = reply["size"]
        return Image.frombytes("RGB", (width, height), pixels)
    except (KeyError, TypeError, ValueError):
        raise _lost(name) from None

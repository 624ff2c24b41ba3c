"""Decoding of uploads in a child process, with a limit on memory and on time.

Image decoders are large C libraries that read bytes from anywhere. In a child, a decoder that
crashes, swallows all memory or never ends costs one file, not the studio. The child answers one
JSON line per request; the parent kills it when it takes too long, and starts another one for the
next file when it died. Where the system has no limit on a process's memory (Windows; macOS ignores
it) the limits on pixels and time remain.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import trainer
from trainer.atomic import remove_leftovers
from trainer.data.images import ImageFacts, background_colour, reencode
from trainer.errors import ImageError, PatinaError

START_SECONDS = 30.0
"""For a child to start up: Python and Pillow on a cold disk of a busy machine."""


def reencode_safely(
    src: Path,
    dst: Path,
    *,
    max_side: int,
    seconds: float = 20,
    memory_mib: int = 1024,
    background: str = "white",
) -> ImageFacts:
    """`images.reencode` in a child process of its own.

    Args:
        seconds: how long the file may take.
        memory_mib: address space of the child in MiB; Python itself needs about 100.

    Raises:
        ImageError: the file cannot be used, takes too long or needs too much memory.
        ConfigError: `background` is no colour.
    """
    results = reencode_many(
        [(src, dst)],
        max_side=max_side,
        seconds=seconds,
        memory_mib=memory_mib,
        background=background,
    )
    (result,) = results
    if isinstance(result, ImageError):
        raise result
    return result


def reencode_many(
    pairs: Iterable[tuple[Path, Path]],
    *,
    max_side: int,
    seconds: float = 20,
    memory_mib: int = 1024,
    background: str = "white",
) -> Iterator[ImageFacts | ImageError]:
    """`reencode_safely` for many (source, destination) pairs, as a rule with one child for all.

    Yields:
        For each pair, in order and as soon as it is done, the facts about the source or the error
        that tells why it cannot be used.

    Raises:
        ConfigError: `background` is no colour.
    """
    background_colour(background)  # once here, rather than as an error of every image
    child: _Child | None = None
    try:
        for src, dst in pairs:
            if child is None:
                child = _Child(memory_mib)
            request = {
                "src": str(src),
                "dst": str(dst),
                "max_side": max_side,
                "background": background,
            }
            try:
                yield child.ask(request, src.name, seconds)
            except _ChildLostError as error:
                child.close()
                child = None
                remove_leftovers(dst)
                yield ImageError(str(error))
    finally:
        if child is not None:
            child.close()


class _ChildLostError(Exception):
    """The child died or was too slow; the message says so in terms of the file."""


class _Child:
    """A running child process: one question at a time."""

    def __init__(self, memory_mib: int) -> None:
        package_home = str(Path(trainer.__file__).parent.parent)
        path = os.pathsep.join(p for p in (package_home, os.environ.get("PYTHONPATH")) if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.data.decode_child", str(memory_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        # A thread, because no portable call waits for a pipe with a time limit.
        self._reader = threading.Thread(target=_pump, args=(self._process.stdout, self._replies), daemon=True)
        self._reader.start()
        self._ready = False

    def ask(self, request: dict[str, Any], name: str, seconds: float) -> ImageFacts | ImageError:
        """The child's answer about one file.

        Raises:
            _ChildLostError: it died, or did not answer in time; it must be closed then.
        """
        if not self._ready:
            late = f"{name} was not opened, because the program for it did not start: try again."
            self._reply(late, START_SECONDS, name)
            self._ready = True
        with contextlib.suppress(OSError):  # a child that is gone is noticed by its silence
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        late = f"{name} takes longer than {seconds:g} s to open: save a smaller or simpler copy."
        reply = json.loads(self._reply(late, seconds, name))
        return ImageError(reply["error"]) if "error" in reply else ImageFacts(**reply["facts"])

    def _reply(self, late: str, seconds: float, name: str) -> str:
        try:
            line = self._replies.get(timeout=seconds)
        except queue.Empty:
            raise _ChildLostError(late) from None
        if not line:
            raise _ChildLostError(
                f"{name} could not be opened: it is damaged, or needs too much memory. Save a smaller copy of it."
            )
        return line

    def close(self) -> None:
        """End the child; at once, since it keeps nothing."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        with contextlib.suppress(OSError):
            self._requests.close()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _pump(replies: IO[str], into: queue.SimpleQueue[str]) -> None:
    """Pass lines on until the child's end closes; an empty one says that it did."""
    with contextlib.suppress(OSError, ValueError):
        for line in replies:
            into.put(line)
    into.put("")


def _serve(memory_mib: int) -> None:
    """The child: answer requests until standard input closes."""
    replies = _private_stdout()
    _limit_memory(memory_mib)
    _say(replies, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        src = Path(request["src"])
        try:
            facts = reencode(
                src,
                Path(request["dst"]),
                max_side=request["max_side"],
                background=request["background"],
            )
            _say(replies, {"facts": asdict(facts)})
        except PatinaError as error:
            _say(replies, {"error": str(error)})


def _private_stdout() -> IO[str]:
    """Standard output for the protocol alone; whatever a library prints goes to standard error."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def _limit_memory(memory_mib: int) -> None:
    try:
        import resource
    except ImportError:
        return  # Windows
    limit = memory_mib * 2**20
    for kind, value in ((resource.RLIMIT_AS, limit), (resource.RLIMIT_CORE, 0)):
        # macOS refuses some limits, and nobody may raise one that is already lower.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


def _say(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


if __name__ == "__main__":
    # The terminal's Ctrl-C reaches the child too; the parent decides when it ends.
    with contextlib.suppress(KeyboardInterrupt):
        _serve(int(sys.argv[1]))

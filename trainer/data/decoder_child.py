"""The other end of `trainer.data.decoder`: the process that decodes, shut in before it sees the first file."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
from dataclasses import asdict
from typing import IO, Any

from PIL import Image

from trainer import sandbox
from trainer.data.duplicates import fingerprint
from trainer.data.images import decode
from trainer.errors import ImageError, PatinaError


def serve(memory_mib: int) -> None:
    """Answer requests until standard input closes."""
    replies = _private_stdout()
    warm_up()
    _say(replies, {"sandbox": sandbox.enter(memory_mib)})
    requests = sys.stdin.buffer
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["bytes"])
        sandbox.allow_seconds(request["seconds"])
        try:
            reply, pixels = _answer(request, data)
        except PatinaError as error:
            reply, pixels = {"error": str(error)}, b""
        _say(replies, reply, pixels)


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    decoded = decode(data, request["name"], background=request["background"])
    image, size = decoded.image, None
    try:
        if request["do"] == "copy":
            image.thumbnail((request["max_side"], request["max_side"]), Image.Resampling.LANCZOS)
            size = image.size
        look = fingerprint(image)
        if request["do"] == "picture":
            # Cropped first: resize(box=...) would let the pixels around the box bleed into its edges.
            size = tuple(request["size"])
            image = image.crop(tuple(request["crop"])).resize(size, Image.Resampling.LANCZOS)
        pixels = image.tobytes() if size else b""
    except MemoryError:
        name = request["name"]
        raise ImageError(f"{name} needs more memory than there is to open it: make it smaller.") from None
    told = [look.bits, base64.b64encode(look.colours).decode()]
    return {"facts": asdict(decoded.facts), "look": told, "size": size}, pixels


def _private_stdout() -> IO[bytes]:
    """Standard output for the protocol alone; whatever a library prints goes to standard error."""
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private


def warm_up() -> None:
    """Load all that decoding needs: nothing can be imported afterwards."""
    import encodings.cp437
    import encodings.cp1252
    import encodings.utf_16
    import encodings.utf_16_be
    import encodings.utf_16_le
    import encodings.utf_32  # noqa: F401

    from PIL import MpoImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

    Image.preinit()
    for kind, mode in (("PNG", "RGBA"), ("JPEG", "CMYK"), ("TIFF", "L"), ("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB")):
        file = io.BytesIO()
        Image.new(mode, (16, 16)).save(file, kind)
        _answer({"do": "copy", "name": "a", "background": "white", "max_side": 8}, file.getvalue())


def _say(replies: IO[bytes], message: dict[str, Any], pixels: bytes = b"") -> None:
    replies.write(json.dumps(message | {"bytes": len(pixels)}).encode() + b"\n")
    replies.write(pixels)
    replies.flush()


if __name__ == "__main__":
    # The terminal's Ctrl-C reaches the child too; the parent decides when it ends.
    with contextlib.suppress(KeyboardInterrupt):
        serve(int(sys.argv[1]))

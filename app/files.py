"""Pictures and downloads over HTTP, straight from the studio folder: nothing is copied or hashed again.

Gradio copies and hashes a file each time it is returned to a page, which is right for uploads and wrong for
pictures that a timer shows. Only pictures that Patina itself encoded are served, from folders that hold nothing
else; a path never leaves the studio folder. A login, if there is one, is asked for as everywhere else.
"""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from app.guard import logged_in
from app.texts import said
from trainer.errors import PatinaError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from trainer.studio.studio import Studio

PICTURES = "patina/pictures"
DOWNLOADS = "patina/download"
SHARED = "patina/share"
REPORT = "patina/report"
BACKUP = "patina/copy"
TYPES = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg"}
_FOLDERS = (
    "runs/*/images",
    "runs/*/removed",
    "runs/*/samples",
    "runs/*/judging",
    "runs/*",
    "previews/*",
    "styles/*",
    "previews/*/*",
    "begun",
)
_A_YEAR = "private, max-age=31536000, immutable"


def picture_url(path: Path, width: int | None = None) -> str:
    """Address of one of the studio's pictures, relative to the page.

    Args:
        path: absolute path of a picture in the studio folder.
        width: largest side in pixels that is needed; the server scales down and keeps the result.
    """
    home, inside = _split(path)
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0
    del home
    scaled = f"&w={width}" if width else ""
    return f"{PICTURES}/{quote(inside)}?v={stamp:x}{scaled}"


def download_url(style: str, layout: str = "kohya", *, half: bool = False) -> str:
    """Address that answers with a style's file under its name, with ``half`` in fp16."""
    return f"{DOWNLOADS}/{quote(style)}?layout={quote(layout)}{'&half=1' if half else ''}"


def share_url(style: str) -> str:
    """Address that answers with the zip that was packed of a style."""
    return f"{SHARED}/{quote(style)}"


def _split(path: Path) -> tuple[Path, str]:
    """(studio folder, path inside it as it stands in an address); known by the first folder's name."""
    for parent in path.parents:
        if parent.name in ("runs", "previews", "begun", "styles"):
            return parent.parent, path.relative_to(parent.parent).as_posix()
    return path.parent, path.name


def routes(studio: Studio, home: Path) -> list[BaseRoute]:
    """The routes, for the application that serves the page."""
    from starlette.routing import Route

    async def picture(request: Request) -> Response:
        return await _in_thread(_picture, home, request.path_params["path"], request.query_params.get("w", ""))

    async def download(request: Request) -> Response:
        layout, half = request.query_params.get("layout", "kohya"), request.query_params.get("half", "")
        return await _in_thread(_download, studio, request.path_params["style"], layout, half == "1")

    async def shared(request: Request) -> Response:
        return await _in_thread(_shared, studio, request.path_params["style"])

    async def report(request: Request) -> Response:
        return await _in_thread(_report, studio)

    async def backup(request: Request) -> Response:
        return await _in_thread(_backup, studio)

    return [
        Route(f"/{REPORT}", _for_users(report)),
        Route(f"/{BACKUP}", _for_users(backup)),
        Route(f"/{PICTURES}/{{path:path}}", _for_users(picture)),
        Route(f"/{DOWNLOADS}/{{style}}", _for_users(download)),
        Route(f"/{SHARED}/{{style}}", _for_users(shared)),
    ]


def _for_users(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Refuse whoever is not logged in, when the studio has a login."""

    async def guarded(request: Request) -> Response:
        from starlette.responses import PlainTextResponse

        if not logged_in(request.scope, request.headers):
            return PlainTextResponse("Log in first.", status_code=401)
        return await endpoint(request)

    return guarded


async def _in_thread(function: Callable[..., Response], *args: object) -> Response:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(function, *args)


def allowed(home: Path, inside: str) -> Path | None:
    """The picture that an address means, or None when it is not one that may be shown."""
    root = home.resolve()
    path = (root / inside).resolve()
    if path.suffix.lower() not in TYPES or not path.is_relative_to(root) or not path.is_file():
        return None
    relative = path.parent.relative_to(root)
    return path if any(relative.match(folder) for folder in _FOLDERS) else None


def _picture(home: Path, inside: str, width: str) -> Response:
    from starlette.responses import FileResponse, PlainTextResponse
    from starlette.responses import Response as Plain

    path = allowed(home, inside)
    if path is None:
        return PlainTextResponse("There is no such picture.", status_code=404)
    side = int(width) if width.isdecimal() else 0
    if 16 <= side <= 2048:
        content = _scaled(path, path.stat().st_mtime_ns, side)
        return Plain(content, media_type="image/webp", headers={"Cache-Control": _A_YEAR})
    return FileResponse(path, media_type=TYPES[path.suffix.lower()], headers={"Cache-Control": _A_YEAR})


@functools.lru_cache(maxsize=512)
def _scaled(path: Path, modified: int, side: int) -> bytes:
    """A WebP of at most ``side`` pixels; ``modified`` is part of the key only."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        target = io.BytesIO()
        picture.convert("RGB").save(target, "WEBP", quality=85, method=2)
    return target.getvalue()


def _download(studio: Studio, style: str, layout: str, half: bool) -> Response:
    from starlette.responses import FileResponse, PlainTextResponse

    if layout not in ("kohya", "diffusers"):
        return PlainTextResponse("The layout is 'kohya' or 'diffusers'.", status_code=400)
    try:
        path = studio.library.download(style, cast(Any, layout), half=half)
    except PatinaError as error:
        return PlainTextResponse(said(str(error)), status_code=404)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


def _shared(studio: Studio, style: str) -> Response:
    from starlette.responses import FileResponse, PlainTextResponse

    try:
        path, name = studio.sharing.zip(style)
    except PatinaError as error:
        return PlainTextResponse(said(str(error)), status_code=404)
    return FileResponse(path, media_type="application/zip", filename=name)


def _report(studio: Studio) -> Response:
    """What to send along with a bug's description; nothing of it is kept here."""
    from starlette.responses import Response as Plain

    from trainer.studio import report

    found = report.facts(studio.home, studio.health.examine(), studio.health.space())
    headers = {"Content-Disposition": f'attachment; filename="{report.report_name()}"', "Cache-Control": "no-store"}
    return Plain(report.bundle(studio.home, found), media_type="application/zip", headers=headers)


def _backup(studio: Studio) -> Response:
    """A copy of the whole studio, as ``patina studio --export`` writes it."""
    from starlette.responses import StreamingResponse

    from trainer.studio import backup

    name = f"patina-studio-{time.strftime('%Y%m%d-%H%M%S')}.tar"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(backup.stream(studio.home), media_type="application/x-tar", headers=headers)

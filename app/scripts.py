"""The page's scripts over HTTP: the modules of ``static/``, which import each other by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

STATIC = Path(__file__).parent / "static"
ADDRESS = "patina/static"
TYPES = {".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png", ".webp": "image/webp"}
"""By ending, because what Python guesses depends on the machine's registry, and a browser runs no text/plain."""


def route() -> BaseRoute:
    """For the application that serves the page; they hold nothing of a user, so no login is asked for."""
    from starlette.responses import FileResponse, PlainTextResponse
    from starlette.routing import Route

    async def script(request: Request) -> Response:
        path = (STATIC / request.path_params["path"]).resolve()
        if path.suffix not in TYPES or not path.is_relative_to(STATIC.resolve()) or not path.is_file():
            return PlainTextResponse("There is no such script.", status_code=404)
        # Asked for again at each visit and answered by date, so that an update is whole at the next reload.
        return FileResponse(path, media_type=TYPES[path.suffix], headers={"Cache-Control": "no-cache"})

    return Route(f"/{ADDRESS}/{{path:path}}", script)

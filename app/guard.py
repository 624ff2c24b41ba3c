"""Who may ask the server for what: looked at before Gradio or anything else sees a request.

A page that stands elsewhere in the user's browser can send requests here (with a foreign Origin, or under a name of its
own that it lets point to this machine), so both names are checked. Starlette's TrustedHostMiddleware is not used, as it
cuts ``[::1]:7860`` at its first colon. Whatever is refused gets one sentence, and one line in the log.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LARGEST_CALL = 16 * 2**20
"""Bytes of a request that is no upload."""
LARGEST_UPLOAD = 2 * 2**30
"""Bytes of one upload with all its files."""
SPARE_BYTES = 64 * 2**20
LONGEST_NAME = 255
LONGEST_TARGET = 4096
FREE_TRIES = 5
LONGEST_WAIT = 300.0
KEPT_CLIENTS = 10_000

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_API = "/gradio_api/"
_UPLOAD = ("/gradio_api/upload", "/gradio_api/upload/")
_LOGIN = ("/login", "/login/")
# What the page of a login needs before there is one; everything else of the API belongs to users.
_OPEN = ("token", "login_check", "user", "app_id", "theme.css", "startup-events", "custom_component")
# Parts of Gradio that Patina does not use and that write, or that ask other servers.
_UNUSED = ("vibe", "undo-vibe", "proxy=", "dev/", "process_recording", "run-history", "profiling")

logger = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is not served: its status and a sentence."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})


@dataclass
class Tries:
    """How often a client failed to log in, and until when it has to wait, by the throttle's clock."""

    failed: int = 0
    until: float = 0.0


@dataclass
class Throttle:
    """Slows down who guesses passwords: after a few failures each one costs twice the wait of the one before."""

    clock: Callable[[], float] = time.monotonic
    clients: dict[str, Tries] = field(default_factory=dict)

    def wait(self, client: str) -> float:
        """Seconds until this client may try again."""
        tries = self.clients.get(client)
        return 0.0 if tries is None else max(0.0, tries.until - self.clock())

    def note(self, client: str, *, succeeded: bool) -> None:
        """Count a try."""
        if succeeded:
            self.clients.pop(client, None)
            return
        while len(self.clients) >= KEPT_CLIENTS:
            del self.clients[next(iter(self.clients))]
        tries = self.clients.setdefault(client, Tries())
        tries.failed += 1
        if tries.failed >= FREE_TRIES:
            tries.until = self.clock() + min(LONGEST_WAIT, 2.0 ** (tries.failed - FREE_TRIES))


class Guard:
    """ASGI middleware around the whole server.

    Args:
        hosts: names and addresses under which the server may be asked, without a port.
        disk: a folder on the disk that uploads go to.
    """

    def __init__(self, app: Any, hosts: frozenset[str], disk: Path) -> None:
        self.app, self.hosts, self.disk = app, hosts, disk
        self.throttle = Throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            # Nothing here speaks over web sockets.
            return
        begun = False
        client = (scope.get("client") or ("", 0))[0]
        is_login = scope["path"] in _LOGIN and scope["method"] == "POST"

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if is_login:
                    self.throttle.note(client, succeeded=message["status"] < 400)
            await send(message)

        try:
            limit = self._check(scope, client, is_login)
            await self.app(scope, _counted(receive, limit), watched)
        except Refused as refused:
            _log(scope, client, f"refused ({refused.status}): {refused.sentence}")
            if not begun:
                await _answer(send, refused)
        except Exception as error:
            _log(scope, client, f"failed: {type(error).__name__}: {error}")
            logger.debug("The request in full", exc_info=True)
            if not begun:
                await _answer(send, Refused(400, "This cannot be answered."))

    def _check(self, scope: Scope, client: str, is_login: bool) -> int:
        """Refuse what may not be asked; returns how many bytes the request may have."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path: str = scope["path"]
        host = headers.get("host", "")
        if name_of(host) not in self.hosts:
            raise Refused(421, "The studio is not served under this name. Start it with --allow-host to add one.")
        origin = headers.get("origin")
        if origin is None:
            foreign = _writes(scope) and headers.get("sec-fetch-site") in ("cross-site", "same-site")
        else:
            foreign = _netloc(origin) != host.lower()
        if foreign:
            raise Refused(403, "A page from elsewhere may not use this studio.")
        if "\0" in path or len(path) > LONGEST_TARGET or len(scope.get("query_string", b"")) > LONGEST_TARGET:
            raise Refused(400, "This address is no name of anything here.")
        if any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in path.replace("=", "/").split("/")):
            raise Refused(400, "This address holds a name that is longer than any file's.")
        if path.startswith(_API) and path[len(_API) :].startswith(_UNUSED):
            raise Refused(404, "There is nothing here.")
        if path.startswith(_API) and not path[len(_API) :].startswith(_OPEN) and not logged_in(scope, headers):
            raise Refused(401, "Log in first.")
        if is_login and (wait := self.throttle.wait(client)) > 0:
            sentence = f"Too many wrong passwords. Try again in {wait:.0f} s."
            raise Refused(429, sentence, {"retry-after": str(int(wait) + 1)})
        return self._limit(path, headers.get("content-length"))

    def _limit(self, path: str, length: str | None) -> int:
        limit = LARGEST_UPLOAD if path in _UPLOAD else LARGEST_CALL
        if length is not None and length.isascii() and length.isdecimal():
            if int(length[:20]) > limit:
                raise Refused(413, f"This is larger than the {limit >> 20} MiB that one request may have.")
            if path in _UPLOAD and int(length) + SPARE_BYTES > shutil.disk_usage(self.disk).free:
                raise Refused(507, "The disk of the studio is full. Free some space, then send it again.")
        return limit


def logged_in(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a user; true for everybody when the studio has no login."""
    server = scope.get("app")
    if server is None or getattr(server, "auth", None) is None:
        return True
    from http.cookies import CookieError, SimpleCookie

    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return False
    names = (f"access-token-{server.cookie_id}", f"access-token-unsecure-{server.cookie_id}")
    return any(name in cookies and server.tokens.get(cookies[name].value) is not None for name in names)


def name_of(host: str) -> str:
    """The name in a Host header, without its port and in lower case; empty when it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if host and "@" not in host else ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def hosts_of(served: str, added: tuple[str, ...] = ()) -> frozenset[str]:
    """The names under which a server at an address may be asked.

    For all networks these are this machine's names and addresses, and ``added`` ones (behind a proxy, say).
    """
    import socket

    import psutil

    names = set(_LOOPBACK) | {name.lower() for name in added}
    if served in ("0.0.0.0", "::", ""):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        found = (each for addresses in psutil.net_if_addrs().values() for each in addresses)
        internet = (each for each in found if each.family in (socket.AF_INET, socket.AF_INET6))
        names |= {each.address.partition("%")[0].lower() for each in internet}
    else:
        names.add(served.lower())
    return frozenset(names)


def _writes(scope: Scope) -> bool:
    return scope["method"] not in ("GET", "HEAD", "OPTIONS")


def _counted(receive: Receive, limit: int) -> Receive:
    """The request's body, up to a limit whatever its headers say."""
    seen = 0

    async def next_part() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise Refused(413, f"This is larger than the {limit >> 20} MiB that one request may have.")
        return message

    return next_part


async def _answer(send: Send, refused: Refused) -> None:
    body = refused.sentence.encode()
    headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **refused.headers}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _log(scope: Scope, client: str, what: str) -> None:
    from trainer.printable import printable

    line = printable(f"{client} {scope['method']} {scope['path']} {what}", 300)
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")

"""Serving the page: the one place where Gradio is launched and where its settings are chosen."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.guard import Guard, hosts_of
from trainer.errors import StudioError

if TYPE_CHECKING:
    from gradio import Blocks

    from app.login import Login
    from trainer.studio.studio import Studio

FIRST_PORT = 7860
PORTS_TRIED = 40
LARGEST_UPLOAD = "200mb"
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, 10049)


@dataclass(frozen=True)
class Address:
    """Where the studio is served; loopback unless the user chose another host."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What to type into a browser on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("127.0.0.1", "localhost", "::1")


def find_address(host: str = "127.0.0.1", port: int | None = None) -> Address:
    """A free port: the one asked for, or the first free one from 7860 on.

    Raises:
        StudioError: the port asked for is taken, or the host is none of this machine's.
    """
    tried: Sequence[int] = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED)
    for candidate in tried:
        if _is_free(host, candidate):
            return Address(host, candidate)
    if port is not None:
        raise StudioError(
            f"Port {port} is taken, perhaps by a studio that is already open at "
            f"{Address(host, port).url}. Look there, or choose another port with --port."
        )
    raise StudioError(f"All ports from {tried[0]} to {tried[-1]} are taken. Choose a free one with --port.")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name != "nt":
            # A port in TIME_WAIT is free; on Windows this option would also steal a port in use.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror:
            raise StudioError(f"The host {host!r} is not known. Use 127.0.0.1, or 0.0.0.0 for all networks.") from None
        except PermissionError:
            raise StudioError(f"Port {port} needs rights that you do not have. Choose one above 1023.") from None
        except OverflowError:
            raise StudioError(f"Port {port} does not exist. Choose one from 1024 to 65535.") from None
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS:
                raise StudioError(
                    f"The host {host!r} is no address of this machine. Use 127.0.0.1, or 0.0.0.0 for all networks."
                ) from None
            return False
    return True


def prepare_environment(home: Path) -> None:
    """Keep Gradio quiet and its files in the studio folder. Must run before Gradio is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(home / "uploads")
    os.environ.pop("GRADIO_SHARE", None)


def launch_arguments(
    studio: Studio, home: Path, address: Address, login: Login | None = None, hosts: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Every argument of ``Blocks.launch``."""
    from starlette.middleware import Middleware

    from app import scripts
    from app.files import routes
    from app.sessions import MOST_SESSIONS
    from app.theme import css, head, theme
    from app.train import samples

    return {
        "server_name": address.host,
        "server_port": address.port,
        "auth": login,
        "theme": theme(),
        "css": css(),
        "head": head(),
        "share": False,
        "ssr_mode": False,
        "run_history": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "state_session_capacity": MOST_SESSIONS,
        "strict_cors": True,
        "max_file_size": LARGEST_UPLOAD,
        "app_kwargs": {
            "routes": [*routes(studio, home), scripts.route(), samples.route()],
            "middleware": [Middleware(Guard, hosts=hosts_of(address.host, hosts), disk=home)],
        },
        "favicon_path": str(scripts.STATIC / "favicon.svg"),
        "footer_links": [],
        "show_error": True,
        "quiet": True,
        "inbrowser": False,
        "prevent_thread_lock": True,
    }


def demand_login(address: Address, login: Login | None) -> None:
    """Refuse to serve everybody on a network.

    Raises:
        StudioError: others can reach the address, and no login is asked for.
    """
    if not address.is_local and login is None:
        raise StudioError(
            f"At {address.host} everybody on the network could use this studio and read its files. Ask for a login "
            "(--auth USER, --auth-file FILE or PATINA_AUTH), or serve it on this machine alone, without --host."
        )


def open_page(
    studio: Studio, home: Path, address: Address, login: Login | None = None, hosts: tuple[str, ...] = ()
) -> Blocks:
    """Build the page and serve it in background threads; close it with ``.close()``.

    Args:
        login: asked for before anything is shown.
        hosts: names beside the address's own under which it may be asked.

    Raises:
        StudioError: the port was taken in the meantime, or a login is missing.
    """
    demand_login(address, login)
    from app import sessions, short_errors
    from app.page import build

    # What was uploaded and not taken in, or offered and not fetched, when the studio was last open.
    uploads = home / "uploads"
    shutil.rmtree(uploads, ignore_errors=True)
    uploads.mkdir(parents=True, exist_ok=True)
    page = build(studio)
    sessions.install(page)
    short_errors.install(home / "logs" / "app.log")
    try:
        page.launch(**launch_arguments(studio, home, address, login, hosts))
    except OSError as error:
        raise StudioError(f"The studio cannot be served at {address.url}: {error}") from None
    return page

"""``python -m app``: open the studio folder, serve the page, and close both when asked to end.

Nothing heavy is imported before the arguments are read; torch never is.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from trainer.errors import PatinaError


def parser() -> argparse.ArgumentParser:
    """The arguments; `patina studio` hands its own through."""
    result = argparse.ArgumentParser(prog="patina studio", description="Open Patina in the browser.")
    result.add_argument("--host", default="127.0.0.1", help="Address to serve at; 0.0.0.0 is every network.")
    result.add_argument("--port", type=int, default=None, help="Port to serve at; without it the first free from 7860.")
    result.add_argument("--auth", default=None, metavar="USER", help="Ask for a login, its password is typed here.")
    result.add_argument(
        "--auth-file",
        type=Path,
        default=None,
        metavar="FILE",
        help="Ask for the USER:PASSWORD that is in a file.",
    )
    result.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="Another name the page is asked under."
    )
    result.add_argument("--home", type=Path, default=None, help="Studio folder; without it the user's own.")
    result.add_argument("--no-browser", action="store_true", help="Do not open a browser window.")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code (2 for what the user can mend)."""
    options = parser().parse_args(arguments)
    try:
        return _serve(options)
    except PatinaError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _serve(options: argparse.Namespace) -> int:
    from app.launch import demand_login, find_address, open_page, prepare_environment
    from app.login import chosen_login
    from trainer.studio.folder import StudioFolder, studio_path

    login = chosen_login(options.auth, options.auth_file)
    address = find_address(options.host, options.port)
    demand_login(address, login)
    home = StudioFolder((options.home or studio_path()).absolute()).prepare()
    prepare_environment(home.path)

    ending = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ending.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)

    from trainer.studio.studio import Studio

    with Studio(home.path, address=address.url) as studio:
        page = open_page(studio, home.path, address, login, tuple(options.allow_host))
        sys.stdout.write(f"Patina is at {address.url} (Ctrl-C ends it; what is in training is saved).\n")
        sys.stdout.flush()
        if not options.no_browser:
            webbrowser.open(address.url)
        while not ending.wait(1.0):
            pass
        page.close(verbose=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
from trainer.languages import said, terminal_language
from trainer.languages.columns import unwrapped, wrappable

CLEAN_SECONDS = 3600.0
"""How often files that nobody took in or fetched for a day are looked for."""


class _Parser(argparse.ArgumentParser):
    """Tells of itself in the language of the terminal."""

    def format_help(self) -> str:
        language = terminal_language()
        for action in self._actions:
            action.help = wrappable(said(action.help or "", language), language)
        self.description = wrappable(said(self.description or "", language), language)
        return unwrapped(super().format_help(), language)


def parser() -> argparse.ArgumentParser:
    """The arguments; `patina studio` hands its own through."""
    result = _Parser(prog="patina studio", description="Open Patina in the browser.")
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
    copies = result.add_mutually_exclusive_group()
    copies.add_argument(
        "--export",
        type=Path,
        default=None,
        metavar="FILE",
        help="Write the whole studio folder into one file and end; a studio that is open goes on meanwhile.",
    )
    copies.add_argument(
        "--import",
        dest="restore",
        type=Path,
        default=None,
        metavar="FILE",
        help="Unpack such a file into a new or empty studio folder and end.",
    )
    result.add_argument("--no-browser", action="store_true", help="Do not open a browser window.")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code (2 for what the user can mend)."""
    options = parser().parse_args(arguments)
    try:
        return _copied(options) if options.export or options.restore else _serve(options)
    except PatinaError as error:
        sys.stderr.write(f"{said(str(error), terminal_language())}\n")
        return 2


def _copied(options: argparse.Namespace) -> int:
    """Write or read a backup, and say what is in it."""
    from trainer.errors import StudioError
    from trainer.studio import backup
    from trainer.studio.folder import StudioFolder, studio_path

    home = (options.home or studio_path()).absolute()
    file = (options.export or options.restore).expanduser()
    try:
        if options.export:
            done = backup.export(StudioFolder(home), file)
            said = f"{file} holds"
        else:
            done = backup.restore(file, home)
            said = f"{home} now has"
    except OSError as error:
        raise StudioError(f"The backup could not be done: {error}. Nothing was changed.") from None
    runs = f"{len(done.runs)} run{'s' * (len(done.runs) != 1)}"
    sys.stdout.write(f"{said} {runs} and {done.files} files, {done.size / 2**20:.1f} MiB.\n")
    return 0


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

    from trainer.studio.health import remove_old_uploads
    from trainer.studio.studio import Studio

    with Studio(home.path, address=address.url) as studio:
        page = open_page(studio, home.path, address, login, tuple(options.allow_host))
        sys.stdout.write(f"Patina is at {address.url} (Ctrl-C ends it; what is in training is saved).\n")
        sys.stdout.flush()
        if not options.no_browser:
            webbrowser.open(address.url)
        while not ending.wait(CLEAN_SECONDS):
            remove_old_uploads(home)
        page.close(verbose=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

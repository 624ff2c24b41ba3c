"""How a command ends badly: one sentence and 2 for what the user can mend, 130 for Ctrl-C, a log and 1 for a bug."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from trainer.errors import PatinaError
from trainer.languages import said, terminal_language
from trainer.printable import printable

BUG = 1
MENDABLE = 2
INTERRUPTED = 130

KEPT_LOGS = 20
"""Logs of bugs; their names sort by time."""

_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def mending(*, as_json: bool = False) -> Iterator[None]:
    """Around a command's work: however it fails, the user reads a sentence and no traceback.

    Args:
        as_json: say the sentence as a JSON line on standard output as well.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        typer.echo("patina: stopped.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except PatinaError as error:
        _end(str(error), MENDABLE, as_json)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise  # Whoever read the output has gone; typer ends without a word.
        sentence = _of_the_system(error) if isinstance(error, OSError) else None
        if sentence:
            _end(sentence, MENDABLE, as_json)
        _end(_bug(error), BUG, as_json)


def _end(sentence: str, code: int, as_json: bool) -> NoReturn:
    # It may quote a file's name or a setting's value, which may try to talk to the terminal.
    if as_json:
        typer.echo(json.dumps({"type": "error", "message": printable(sentence)}))
    sentence = printable(said(sentence, terminal_language()))
    typer.secho(f"patina: {sentence}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    raise typer.Exit(code) from None


def _of_the_system(error: OSError) -> str | None:
    """A sentence for what any write can meet; None for what only a bug explains."""
    where = f" {error.filename}" if error.filename else ""
    if error.errno in _DISK_FULL:
        return f"The disk is full and{where or ' a file'} cannot be written: free some space, then try again."
    if error.errno in _NO_RIGHTS and where:
        return f"You may not read or write{where} ({error.strerror}): change its rights, or choose another place."
    if error.errno == errno.ENAMETOOLONG:
        name = max(Path(error.filename or "").parts, key=len, default="")
        return f"The name {name[:40]}... is longer than this system allows: choose a shorter one."
    return None


def _bug(error: Exception) -> str:
    what = f"Something went wrong that Patina did not expect ({_first_line(error)})."
    log = _write_log(error)
    if log is None:
        return f"{what} No log could be written."
    return f"{what} The details are in {log}; please send them along when you report it."


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".rstrip(": ")


def _write_log(error: Exception) -> Path | None:
    """The traceback and what helps to understand it, in the studio folder or, where that cannot be, a temporary one."""
    from trainer.studio.folder import studio_path
    from trainer.version import __version__

    torch = getattr(sys.modules.get("torch"), "__version__", "not loaded")
    lines = [
        f"patina {__version__}, Python {platform.python_version()}, torch {torch}, {platform.platform()}",
        *traceback.format_exception(error),
    ]
    name = f"patina-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (studio_path() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
            for old in sorted(folder.glob("patina-error-*.log"))[:-KEPT_LOGS]:
                old.unlink(missing_ok=True)
        except OSError:
            continue
        return path
    return None


def quiet_libraries() -> None:
    """Keep the advice that libraries print for their own developers out of the user's way."""
    import logging
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)

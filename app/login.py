"""The studio's login: one name and a password that is kept as a hash, and asked for where nobody else can read it."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from trainer.errors import StudioError

VARIABLE = "PATINA_AUTH"
_ASKS = "name a file that holds USER:PASSWORD with --auth-file, set PATINA_AUTH, or give --auth USER and be asked."


class Login:
    """Checks a name and a password in the time that a hash takes, whichever of the two is wrong.

    The hash is scrypt (Percival 2009, RFC 7914) with n = 2^14, r = 8, p = 1: 16 MiB and some 50 ms a try.
    """

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self._salt = secrets.token_bytes(16)
        self._hash = self._hashed(password)

    def __call__(self, user: str, password: str) -> bool:
        """Whether both are right."""
        same = hmac.compare_digest(self._hashed(password[:1000]), self._hash)
        return hmac.compare_digest(user.encode("utf-8", "replace"), self.user.encode()) and same

    def _hashed(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode("utf-8", "replace"), salt=self._salt, n=2**14, r=8, p=1)


def chosen_login(user: str | None, file: Path | None) -> Login | None:
    """The login that was asked for: from a file, by asking for the password, from the environment, or none.

    Args:
        user: of ``--auth``; its password is asked for on the terminal.
        file: of ``--auth-file``; one line ``USER:PASSWORD``.

    Raises:
        StudioError: one of the two is missing, or a password stands on the command line.
    """
    if user is not None and file is not None:
        raise StudioError("--auth and --auth-file both name a login: give one of them.")
    # The worker and whatever it starts need not know it.
    said = os.environ.pop(VARIABLE, "")
    if file is not None:
        try:
            return parsed(file.read_text(encoding="utf-8").strip("\r\n"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise StudioError(f"--auth-file {file} cannot be read: {error}.") from None
    if user is None:
        return parsed(said, VARIABLE) if said else None
    if ":" in user:
        raise StudioError(
            f"--auth takes a name alone: everybody on this machine can read a command line. For the password {_ASKS}"
        )
    try:
        password = getpass.getpass(f"Password for {user}: ")
    except (EOFError, OSError):
        password = ""
    if not user or not password:
        raise StudioError(f"--auth needs a name, and a password that is typed when it is asked for; or {_ASKS}")
    return Login(user, password)


def parsed(text: str, source: str) -> Login:
    """``user:password`` from a file or the environment.

    Raises:
        StudioError: one of the two is missing.
    """
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise StudioError(f"{source} needs a name and a password with a colon between, such as anna:secret.")
    return Login(user, password)

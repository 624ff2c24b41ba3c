"""Fetching a model that writes captions, as a process of its own: a download is ended by ending it.

``python -m trainer.captioning.fetch MODEL LENGTH`` answers with a line of JSON: the folder, or why there is
none. What has arrived stays in the hub's cache, and the next attempt goes on from there.
"""

from __future__ import annotations

import json
import sys

from trainer.captioning.writers import fetch, locate
from trainer.errors import PatinaError


def main() -> int:
    """Fetch what the first argument names, for captions of the length that is the second."""
    try:
        answer = {"folder": str(fetch(locate(sys.argv[1]), sys.argv[2]).folder)}
    except PatinaError as error:
        answer = {"problem": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

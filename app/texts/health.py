"""The texts of the dialog about the studio itself; see `app.texts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HealthTexts:
    """What the dialog behind the device's name says."""

    open: str = "Check this studio"
    title: str = "This studio"
    close: str = "Close"
    well: str = "All is well."
    wrong: str = "Not as it should be"
    repair: str = "Put right"
    done: str = "Done"
    space: str = "On the disk"
    clean: str = "Clean up ({size})"
    clean_help: str = "Removes downloads and the caches of finished runs, which can be made again."
    cleaned: str = "{size} came free."
    nothing: str = "There is nothing to clean up."
    report: str = "Report for a bug"
    report_help: str = (
        "A zip archive of text files, without passwords, names and pictures. Look into it before you send it."
    )
    places: Mapping[str, str] = field(
        default_factory=lambda: {
            "runs": "Runs",
            "caches": "Caches of finished runs",
            "pictures": "Pictures",
            "styles": "Imported styles",
            "trash": "Trash, emptied after 30 days",
            "downloads": "Downloads",
            "logs": "Logs",
            "free": "Free",
        }
    )

"""The texts of the header, the tabs' names, and words that all tabs share; see `app.texts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FrameTexts:
    """The page's frame."""

    title: str = "Patina"
    tabs: Mapping[str, str] = field(
        default_factory=lambda: {
            "train": "Train",
            "preview": "Preview",
            "library": "Library",
            "settings": "Settings",
        }
    )
    to_settings: str = "Settings, and how this studio is"
    skip: str = "To the main action"
    light_dark: str = "Switch between light and dark"
    language: str = "Language"
    to_run: str = "Show the run in training"
    device: str = "Device"
    memory_of: str = "{used} of {total}"
    run_chip: str = "{name}, {percent} %"
    run_title: str = "{percent} % {name}"
    ended: str = "{name} is finished."
    note: str = "Note"
    comma: str = ", "
    known_subjects: str = "{count} subjects that this base draws well"
    seconds: str = "{seconds} s"
    minutes: str = "{minutes} min"
    hours: str = "{hours} h {minutes} min"

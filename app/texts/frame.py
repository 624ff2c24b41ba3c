"""The texts of the header, the tabs' names, and words that all tabs share; see `app.texts`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameTexts:
    """The page's frame."""

    title: str = "Patina"
    train: str = "Train"
    preview: str = "Preview"
    library: str = "Library"
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

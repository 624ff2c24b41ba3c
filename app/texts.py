"""Every text of the interface, in one place: a second language is one more `Texts` in one more file.

Help for settings is not here but in `trainer.config`, because the command line shows the same words.
``{braces}`` are filled with `str.format`; texts are plain, never HTML.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.texts_preview import LibraryTexts, PreviewTexts
from app.texts_train import TrainTexts


@dataclass(frozen=True)
class FrameTexts:
    """The header, the tabs' names, and words that all tabs share."""

    title: str = "Patina"
    train: str = "Train"
    preview: str = "Preview"
    library: str = "Library"
    light_dark: str = "Switch between light and dark"
    to_run: str = "Show the run in training"
    device: str = "Device"
    memory_of: str = "{used} of {total}"
    run_chip: str = "{name}, {percent} %"
    note: str = "Note"


@dataclass(frozen=True)
class Texts:
    """All of it; ``language`` is the page's language code."""

    language: str = "en"
    frame: FrameTexts = field(default_factory=FrameTexts)
    train: TrainTexts = field(default_factory=TrainTexts)
    preview: PreviewTexts = field(default_factory=PreviewTexts)
    library: LibraryTexts = field(default_factory=LibraryTexts)


TEXTS = Texts()

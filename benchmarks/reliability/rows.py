"""What a row of the table comes to, and how it is said."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """A row while it is measured.

    Attributes:
        name: as on the command line.
        wanted: trials of the full version.
        done, good: trials so far, and those that held.
        failures: a sentence for each that did not hold.
        figures: what was measured on the way.
    """

    name: str
    wanted: int
    done: int = 0
    good: int = 0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    report: Path | None = None

    def count(self, trouble: str = "") -> None:
        """A trial is over; ``trouble`` says what did not hold."""
        self.done += 1
        if trouble:
            self.failures.append(trouble)
        else:
            self.good += 1
        if self.report is not None:
            self.report.write_text(self.line() + "\n", encoding="utf-8")

    def most(self, name: str, value: float) -> None:
        """Keep the largest of a figure."""
        self.figures[name] = max(value, self.figures.get(name, value))

    def add(self, name: str, value: float = 1) -> None:
        """Add to a figure."""
        self.figures[name] = self.figures.get(name, 0) + value

    def line(self) -> str:
        """Everything as a line of JSON."""
        return json.dumps(
            {
                "row": self.name,
                "held": self.good,
                "of": self.done,
                "wanted": self.wanted,
                **{key: round(value, 3) if isinstance(value, float) else value for key, value in self.figures.items()},
                "failures": self.failures[:10],
                "seconds": round(time.monotonic() - self.began, 1),
                "machine": platform.machine(),
                "day": time.strftime("%Y-%m-%d"),
            }
        )

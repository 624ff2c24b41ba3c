"""How long a run still takes, with the pictures that it draws between its steps and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.studio.run_log import Standing


def time_left(standing: Standing, settings: Mapping[str, Any]) -> float | None:
    """Seconds until the file is there, from what this run itself took so far; None before the first step.

    The pictures still to come are those of the settings' ``samples.every`` and one more round for the sheet.
    Writing and checking the file are not in it: no run has measured them before its end.
    """
    if standing.seconds_left is None:
        return None
    every = int((settings.get("samples") or {}).get("every") or 0)
    ahead = range(standing.step + 1, standing.steps + 1)
    rounds = sum(1 for step in ahead if step == standing.steps or (every and step % every == 0))
    return standing.seconds_left + (rounds + 1) * (standing.picture_seconds or 0.0)

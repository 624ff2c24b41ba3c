"""Numbers as people read them, with their units."""

from __future__ import annotations

from app.texts import TEXTS


def size(count: int) -> str:
    """Bytes: ``0.2 MB``, ``3.1 GB``."""
    if count < 0.05 * 2**20:
        return f"{count / 2**10:.0f} KB"
    if count < 2**30:
        return f"{count / 2**20:.1f} MB"
    return f"{count / 2**30:.1f} GB"


def of_total(used: int, total: int) -> str:
    """A part of some memory in the unit of the whole: ``0.6 of 23.5 GB``."""
    unit = 2**30 if total >= 2**30 else 2**20
    return TEXTS.frame.memory_of.format(used=f"{used / unit:.1f}", total=size(total))


def duration(seconds: float) -> str:
    """Seconds: ``45 s``, ``3 min``, ``1 h 20 min``."""
    words = TEXTS.frame
    if seconds < 90:
        return words.seconds.format(seconds=max(0, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 60:
        return words.minutes.format(minutes=minutes)
    return words.hours.format(hours=minutes // 60, minutes=f"{minutes % 60:02d}")

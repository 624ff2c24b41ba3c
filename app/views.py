"""From the studio's plain values to what the page shows: small pure functions that return HTML or text.

Whatever a user or a file named is escaped by `text`; no other function here takes part of a string as HTML.
"""

from __future__ import annotations

import html

from app.texts import TEXTS
from trainer.studio.views import MachineView, RunSummary


def text(value: object) -> str:
    """``value`` as text that is safe inside an element and inside a quoted attribute."""
    return html.escape(str(value), quote=True)


def size(count: int) -> str:
    """Bytes for people: ``0.2 MB``, ``3.1 GB``."""
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
    """Seconds for people: ``45 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def wordmark() -> str:
    """The name at the left of the header."""
    return f'<span class="wordmark">{text(TEXTS.frame.title)}</span>'


def chips(machine: MachineView, active: RunSummary | None) -> str:
    """The right side of the header: the device, the run in training, and the switch for light and dark."""
    words = TEXTS.frame
    name = machine.name or words.device
    memory = ""
    if machine.memory_total_bytes:
        memory = of_total(machine.memory_used_bytes, machine.memory_total_bytes)
    parts = [f'<span class="chip device" title="{text(words.device)}">{text(name)}<span>{text(memory)}</span></span>']
    if active is not None:
        share = active.step / active.steps if active.steps else 0.0
        label = words.run_chip.format(name=active.name, percent=round(100 * share))
        parts.append(
            f'<button type="button" class="chip run" data-act="run" aria-label="{text(words.to_run)}: {text(label)}">'
            f'<span>{text(label)}</span><i style="width:{100 * share:.1f}%"></i></button>'
        )
    parts.append(
        f'<button type="button" class="chip looks" data-act="looks" aria-label="{text(words.light_dark)}" '
        f'title="{text(words.light_dark)}"><i></i></button>'
    )
    return "".join(parts)

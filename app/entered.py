"""What is entered into a page's fields reaches the studio once and in its order, whichever request brings it first.

A field is sent when it is left, a button when it is pressed; one movement does both, and the two requests are answered
side by side. So every request of ``static/panel.js`` also carries what was entered in the last seconds, numbered as it
was entered, and is answered when all of that is written.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trainer.errors import PatinaError

MOST_PAGES = 300
"""Pages that are remembered, those that asked last."""

Name = tuple[str, str, str]
"""Names a field: run, setting, image."""


class _Last(NamedTuple):
    """The newest entry of a field that was taken, and why it was refused (empty where it was not)."""

    number: int = 0
    refused: str = ""


@dataclass
class _Page:
    lock: threading.Lock = field(default_factory=threading.Lock)
    last: dict[Name, _Last] = field(default_factory=dict)


class Entered:
    """Takes what requests carry.

    Args:
        write: does what an entry says: the field's ``data-`` values, its ``value``, and the ``run`` of its page.
    """

    def __init__(self, write: Callable[[Mapping[str, Any]], object]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._pages: OrderedDict[str, _Page] = OrderedDict()

    def take(self, data: object) -> str:
        """Write what a request carries, unless another one has brought it or something newer of the same field.

        Args:
            data: the request's event; what a browser should not have sent carries nothing.

        Returns:
            Why something that it carries was refused, by this request or an earlier one, or nothing.
        """
        page_id, entries = _carried(data)
        refused = ""
        if entries:
            page = self._page(page_id)
            with page.lock:
                for number, entry in entries:
                    refused = self._taken(page, number, entry) or refused
        return refused

    def _page(self, page_id: str) -> _Page:
        with self._lock:
            page = self._pages.setdefault(page_id, _Page())
            self._pages.move_to_end(page_id)
            while len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
            return page

    def _taken(self, page: _Page, number: int, entry: Mapping[str, Any]) -> str:
        name = str(entry.get("run", "")), str(entry.get("set", "")), str(entry.get("image", ""))
        last = page.last.get(name, _Last())
        if number > last.number:
            # Before it is written: what fails is not tried again by every request that carries it.
            page.last[name] = last = _Last(number)
            try:
                self._write(entry)
            except PatinaError as error:
                page.last[name] = last = _Last(number, str(error))
        return last.refused if last.number == number else ""


def _carried(data: object) -> tuple[str, list[tuple[int, Mapping[str, Any]]]]:
    """A request's page and what it carries, by number, oldest first."""
    entered = data.get("entered") if isinstance(data, Mapping) else None
    entries = entered.get("entries") if isinstance(entered, Mapping) else None
    if not isinstance(entered, Mapping) or not isinstance(entries, list):
        return "", []
    numbered = [
        (entry["number"], entry)
        for entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("number"), int) and entry["number"] > 0
    ]
    return str(entered.get("page", "")), sorted(numbered, key=lambda each: each[0])

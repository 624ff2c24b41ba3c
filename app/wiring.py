"""What the Preview and Library tabs still send by digest; `app.refresh` is how the page follows the studio."""

from __future__ import annotations

import hashlib
import json
from collections.abc import MutableMapping, Sequence
from typing import Any

import gradio as gr

from app.refresh import ACTION, POLL, tell, told

__all__ = ["ACTION", "POLL", "news", "tell", "told"]


def news(seen: MutableMapping[str, str], values: Sequence[Any]) -> list[Any]:
    """``values`` for the outputs of a tick, with `gradio.skip` for each one that this page already has.

    Args:
        seen: the value of a ``gr.State({})`` that belongs to this listener; changed in place. Return it as the
            listener's last output.
        values: one for each output: strings, numbers, lists, or component updates.
    """
    result: list[Any] = []
    for index, value in enumerate(values):
        digest = hashlib.blake2b(_canonical(value).encode(), digest_size=16).hexdigest()
        if seen.get(str(index)) == digest:
            result.append(gr.skip())
        else:
            seen[str(index)] = digest
            result.append(value)
    return result


def _canonical(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, gr.blocks.Block):
        return json.dumps([type(value).__name__, value.constructor_args], default=str, sort_keys=True)
    return json.dumps(value, default=str, sort_keys=True)

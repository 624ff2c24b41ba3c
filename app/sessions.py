"""A visitor's session costs little: Gradio would describe every component of the page anew for each one.

That took 17 ms of the one thread that answers everybody, for each page that is opened and for each call of a program
that names no session; 50 clients at once waited seconds for a status that takes 3 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gradio as gr

MOST_SESSIONS = 300
"""Sessions that are kept, the last used ones; a page that is open asks every second and is among them."""


def install(page: gr.Blocks) -> None:
    """Have the components of a page, which never change after it is built, described once."""
    from gradio.blocks import BlocksConfig

    plain = getattr(BlocksConfig.config_for_block, "plain", BlocksConfig.config_for_block)
    ours = {id(block): block for block in page.blocks.values()}
    described: dict[int, dict[str, Any]] = {}

    def config_for_block(_id: int, rendered_ids: list[int], block: Any, renderable: Any = None) -> dict[str, Any]:
        if renderable is not None or ours.get(id(block)) is not block:
            return dict(plain(_id, rendered_ids, block, renderable))
        if _id not in described:
            described[_id] = plain(_id, rendered_ids, block)
        # A session notes its own values in there.
        known = described[_id]
        return {**known, "props": {**known["props"]}} if "props" in known else dict(known)

    config_for_block.plain = plain  # type: ignore[attr-defined]
    # Gradio has no setting for this.
    BlocksConfig.config_for_block = staticmethod(config_for_block)

"""The Library tab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from app.texts import TEXTS
from app.views import text

if TYPE_CHECKING:
    from app.ui import Shell


def build(shell: Shell, tab: gr.Tab) -> None:
    """Make the tab's components and listeners; called inside its ``gr.Tab``."""
    gr.HTML(f'<p class="empty">{text(TEXTS.frame.library)}</p>')

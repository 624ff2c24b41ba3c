"""A session is quick to make, and its values stay its own.

Gradio leaves event loops open, so it runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import json
import gradio as gr
from gradio.state_holder import SessionState
from app import sessions

with gr.Blocks() as page:
    box = gr.Textbox("first", label="Name")
    gr.HTML("<p>x</p>")
    gr.State({"a": 1})
key = box._id
plain = SessionState(page).config_values
sessions.install(page)
asked = []
real = gr.Textbox.get_config
gr.Textbox.get_config = lambda self, *more: asked.append(1) or real(self, *more)
same = [SessionState(page).config_values == plain for _ in range(3)]
described = len(asked)
one, other = SessionState(page), SessionState(page)
one._update_value_in_config(key, "second")
values = [each.config_values[key]["props"]["value"] for each in (one, other, SessionState(page))]
print(json.dumps([same, described, values]))
"""


def test_a_session_is_described_as_gradio_does_once_for_all_and_keeps_its_own_values() -> None:
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, check=True)
    same, described, values = json.loads(run.stdout)
    assert same == [True, True, True]
    assert described == 1
    assert values == ["second", "first", "first"]

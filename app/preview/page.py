"""The Preview tab: what to make at the left, the picture with its wipe and filmstrip at the right, results below."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import gradio as gr

from app.preview import styles
from app.preview.form import BLOCK_SLIDERS, MOST_PICTURES, Mix
from app.preview.listeners import Parts, wire
from app.preview.scene import Scene
from app.preview.sheet import KINDS, WRITTEN
from app.preview.styles import Suits
from app.preview.view import begin, made_before, prompts, subjects
from app.refresh import Panels, render
from app.texts import TEXTS
from trainer.adapters.targets import HALVES
from trainer.bases.families import BUNDLED

if TYPE_CHECKING:
    from app.shell import Shell

MIXER = """
const tell = {
  changed: () => trigger("changed", {}),
  words: (words) => trigger("words", { words }),
  put_in: (style) => trigger("put_in", { style }),
};
patina.module("preview/mixer.js").then((script) => script.attach({ element, tell, watch, props }));
"""
"""The events are named here, because Gradio looks for their names in this script."""
WRITTEN_FIRST = {"prompts": "", "strengths": "0, 0.5, 1, 1.5"}
"""What the fields for a sheet's values hold at the beginning; of the rest `TEXTS.preview.axis_examples` knows one."""


def build(shell: Shell, tab: gr.Tab) -> None:
    """Make the tab's components and listeners; called inside its ``gr.Tab``."""
    suits = styles.suits(shell.studio, BUNDLED.key)
    page, scene, panels = gr.Textbox(visible=False), gr.State(Scene(suits=suits)), Panels()
    panels.place("styles", script="preview/styles.js")
    with gr.Row(elem_id="preview-bench", equal_height=False):
        with gr.Column(scale=4, min_width=304, elem_id="preview-controls"):
            fields, make, die = _controls(shell, panels, suits)
        with gr.Column(scale=8, min_width=320, elem_id="preview-pictures"):
            modes, axes, make_sheet = _pictures(shell, panels)
    panels.place("made-before", first=render("made-before", made_before()))
    panels.place("results")
    wire(shell, tab, Parts(page, scene, panels, fields, axes, make, die, modes, make_sheet))


def _controls(
    shell: Shell, panels: Panels, suits: Suits
) -> tuple[dict[str, gr.components.Component], gr.Button, gr.Button]:
    """The left side: prompt, styles, the button, and the rest folded away.

    Args:
        suits: what suits the base that is named at first.
    """
    says = shell.says
    fields: dict[str, gr.components.Component] = {}

    def words(name: str, *more: str) -> dict[str, str]:
        texts = TEXTS.preview
        said = {"label": getattr(texts, name), "info": getattr(texts, f"{name}_help")}
        return said | {key: getattr(texts, f"{name}_{key}") for key in more}

    fields["prompt"] = says(
        gr.Textbox(
            BUNDLED.prompts[0], lines=1, max_lines=5, max_length=2000, elem_id="preview-prompt",
            **words("prompt", "placeholder"),
        ),
        lambda: words("prompt", "placeholder"),
    )  # fmt: skip
    panels.place("tokens")
    panels.place("prompts", first=render("prompts", prompts(())))
    panels.place("subjects", first=render("subjects", subjects(suits)))
    fields["mixer"] = gr.HTML(
        Mix().value(),
        html_template='<div class="mixer"></div>',
        js_on_load=MIXER,
        apply_default_css=False,
        elem_id="preview-mixer",
    )
    make = says(
        gr.Button(TEXTS.preview.make, variant="primary", elem_id="preview-make"), lambda: {"value": TEXTS.preview.make}
    )
    beginning = gr.Accordion(TEXTS.preview.begin, open=False, elem_id="preview-begin")
    with says(beginning, lambda: {"label": TEXTS.preview.begin}):
        panels.place("begin", first=render("begin", begin(None)))
        fields["change"] = says(
            gr.Slider(0.05, 1, value=0.6, step=0.05, elem_id="preview-change", **words("change")),
            lambda: words("change"),
        )
    more = gr.Accordion(TEXTS.preview.more, open=False, elem_id="preview-more")
    with says(more, lambda: {"label": TEXTS.preview.more}):
        fields["base"] = says(
            gr.Dropdown(
                [(TEXTS.preview.bundled, BUNDLED.key)], value=BUNDLED.key, allow_custom_value=True,
                elem_id="preview-base", **words("base"),
            ),
            lambda: words("base"),
        )  # fmt: skip
        fields["negative"] = says(gr.Textbox(max_length=2000, **words("negative")), lambda: words("negative"))
        with gr.Row(elem_id="preview-seed-row", equal_height=True):
            fields["seed"] = says(
                gr.Number(7, precision=0, minimum=0, maximum=2**32 - 1, elem_id="preview-seed", **words("seed")),
                lambda: words("seed"),
            )
            die = says(
                gr.Button(TEXTS.preview.die, size="sm", elem_id="preview-die", scale=0, min_width=128),
                lambda: {"value": TEXTS.preview.die},
            )
        fields["count"] = says(gr.Slider(1, MOST_PICTURES, value=1, step=1, **words("count")), lambda: words("count"))
        fields["steps"] = says(
            gr.Slider(1, 100, value=suits.steps, step=1, elem_id="preview-steps", **words("steps")),
            lambda: words("steps"),
        )
        fields["scheduler"] = says(
            gr.Dropdown(
                styles.schedulers(suits), value=suits.scheduler, filterable=False, **words("scheduler"),
            ),
            lambda: words("scheduler"),
        )  # fmt: skip
        # Texts, because Gradio makes 0 of an empty number when what is folded is opened.
        fields["guidance"] = says(
            gr.Textbox(max_length=8, elem_id="preview-guidance", **words("guidance", "placeholder")),
            lambda: words("guidance", "placeholder"),
        )
        with gr.Row(elem_id="preview-size"):
            for side in ("width", "height"):
                fields[side] = says(
                    gr.Textbox(max_length=8, min_width=120, **words(side, "placeholder")),
                    partial(words, side, "placeholder"),
                )
        for block in BLOCK_SLIDERS:
            name, shown = f"block_{block}", block not in HALVES or block in suits.halves
            fields[name] = says(
                gr.Slider(0, 2, value=1, step=0.05, visible=shown, elem_id=f"preview-block-{block}", **words(name)),
                partial(words, name),
            )
    return fields, make, die


def _pictures(shell: Shell, panels: Panels) -> tuple[gr.Tabs, dict[str, gr.components.Component], gr.Button]:
    """The right side: one picture with its strip, or a sheet."""
    says = shell.says
    with gr.Tabs(selected="picture", elem_id="preview-modes") as modes:
        picture = gr.Tab(TEXTS.preview.tab_picture, id="picture")
        with says(picture, lambda: {"label": TEXTS.preview.tab_picture}):
            panels.place("viewer", script="preview/viewer.js")
        sheet = gr.Tab(TEXTS.preview.tab_sheet, id="sheet")
        with says(sheet, lambda: {"label": TEXTS.preview.tab_sheet}):
            axes: dict[str, gr.components.Component] = {}
            with gr.Row(elem_id="sheet-axes"):
                for name, kind in (("rows", "prompts"), ("columns", "strengths")):
                    with gr.Column(min_width=240):
                        axes |= _axis(shell, name, kind)
            make_sheet = says(
                gr.Button(TEXTS.preview.make_sheet, variant="primary", elem_id="sheet-make"),
                lambda: {"value": TEXTS.preview.make_sheet},
            )
            panels.place("sheet")
    return modes, axes, make_sheet


def _axis(shell: Shell, name: str, kind: str) -> dict[str, gr.components.Component]:
    """What varies along rows or columns, and the values where any are written."""

    def choice() -> dict[str, object]:
        words = TEXTS.preview
        offered = [(words.axes[each], each) for each in KINDS]
        return {
            "label": getattr(words, f"sheet_{name}"),
            "info": getattr(words, f"sheet_{name}_help"),
            "choices": offered,
        }

    chosen = shell.says(gr.Dropdown(value=kind, filterable=False, elem_id=f"sheet-{name}", **choice()), choice)
    written = shell.says(
        gr.Textbox(
            WRITTEN_FIRST[kind],
            label=TEXTS.preview.sheet_values,
            info=TEXTS.preview.axis_help[kind],
            lines=3 if kind == "prompts" else 1,
            max_lines=8,
            elem_id=f"sheet-{name}-values",
        ),
        lambda: {"label": TEXTS.preview.sheet_values, "info": TEXTS.preview.axis_help[kind]},
    )

    def other(kind: str) -> gr.Textbox:
        words = TEXTS.preview
        return gr.Textbox(
            words.axis_examples.get(kind, ""),
            info=words.axis_help.get(kind, ""),
            visible=kind in WRITTEN,
            lines=3 if kind == "prompts" else 1,
        )

    chosen.input(other, inputs=chosen, outputs=written, api_visibility="private", show_progress="hidden", queue=False)
    return {name: chosen, f"{name}_written": written}

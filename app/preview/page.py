"""The Preview tab: what to make at the left, the picture with its wipe and filmstrip at the right, results below."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import gradio as gr

from app.html import text
from app.preview.form import MOST_PICTURES, Mix
from app.preview.listeners import wire
from app.preview.scene import Scene
from app.preview.sheet import sheet_html
from app.preview.view import viewer
from app.texts import TEXTS
from app.widgets import widget
from trainer.bases.families import BUNDLED
from trainer.config.schedulers import SCHEDULERS
from trainer.events import PreviewSettings

if TYPE_CHECKING:
    from app.shell import Shell

WORDS = TEXTS.preview


@dataclass(frozen=True)
class Parts:
    """The tab's components; ``form`` lists those that `app.preview.form.read_form` reads, in its order."""

    prompt: gr.Textbox
    mixer: gr.HTML
    add: gr.Dropdown
    make: gr.Button
    cancel: gr.Button
    negative: gr.Textbox
    seed: gr.Number
    die: gr.Button
    steps: gr.Slider
    guidance: gr.Number
    scheduler: gr.Dropdown
    width: gr.Number
    height: gr.Number
    count: gr.Slider
    base: gr.Dropdown
    modes: gr.Tabs
    viewer: gr.HTML
    prompts: gr.Textbox
    kind: gr.Radio
    strengths: gr.Textbox
    make_sheet: gr.Button
    sheet: gr.HTML
    results: gr.HTML
    scene: gr.State

    @property
    def form(self) -> list[gr.components.Component]:
        return [
            self.prompt, self.mixer, self.negative, self.seed, self.steps, self.guidance,
            self.scheduler, self.width, self.height, self.count, self.base,
        ]  # fmt: skip


def build(shell: Shell, tab: gr.Tab) -> None:
    """Make the tab's components and listeners; called inside its ``gr.Tab``."""
    with gr.Row(elem_id="preview-bench", equal_height=False):
        with gr.Column(scale=4, min_width=304, elem_id="preview-controls"):
            left = _controls()
        with gr.Column(scale=8, min_width=320, elem_id="preview-pictures"):
            right = _pictures()
    gr.HTML(f'<h2 class="section">{text(WORDS.made_before)}</h2>')
    results = widget("preview_results", "results", None, asdict(WORDS.results))
    wire(shell, Parts(**left, **right, results=results, scene=gr.State(Scene())))


def _controls() -> dict[str, gr.components.Component]:
    """The left side: prompt, styles, the button, and the rest folded away."""
    defaults = PreviewSettings.model_construct()
    prompt = gr.Textbox(
        BUNDLED.prompts[0],
        label=WORDS.prompt,
        info=WORDS.prompt_help,
        placeholder=WORDS.prompt_placeholder,
        lines=1,
        max_lines=5,
        max_length=2000,
        elem_id="preview-prompt",
    )
    mixer = widget("preview_mixer", "mixer", Mix().value(), asdict(WORDS.mixer))
    add = gr.Dropdown(
        [], value=None, label=WORDS.add_style, info=WORDS.add_help, elem_id="preview-add", filterable=True
    )
    with gr.Row(elem_id="preview-buttons"):
        make = gr.Button(WORDS.make, variant="primary", elem_id="preview-make")
        cancel = gr.Button(WORDS.cancel, visible=False, elem_id="preview-cancel", min_width=80)
    with gr.Accordion(WORDS.more, open=False, elem_id="preview-more"):
        base = gr.Dropdown(
            [(WORDS.bundled, "bundled")],
            value="bundled",
            label=WORDS.base,
            info=WORDS.base_help,
            allow_custom_value=True,
            elem_id="preview-base",
        )
        negative = gr.Textbox(label=WORDS.negative, info=WORDS.negative_help, max_length=2000)
        with gr.Row(elem_id="preview-seed-row", equal_height=True):
            seed = gr.Number(
                7,
                label=WORDS.seed,
                info=WORDS.seed_help,
                precision=0,
                minimum=0,
                maximum=2**32 - 1,
                elem_id="preview-seed",
            )
            die = gr.Button(WORDS.die, size="sm", elem_id="preview-die", scale=0, min_width=128)
        count = gr.Slider(1, MOST_PICTURES, value=1, step=1, label=WORDS.count, info=WORDS.count_help)
        steps = gr.Slider(1, 100, value=defaults.steps, step=1, label=WORDS.steps, info=WORDS.steps_help)
        guidance = gr.Number(None, label=WORDS.guidance, info=WORDS.guidance_help, minimum=0, maximum=30, step=0.5)
        scheduler = gr.Dropdown(
            [(row.title, key) for key, row in SCHEDULERS.items()],
            value=defaults.scheduler,
            label=WORDS.scheduler,
            info=WORDS.scheduler_help,
            filterable=False,
        )
        with gr.Row():
            width = gr.Number(None, label=WORDS.width, info=WORDS.size_help, precision=0, minimum=0, maximum=4096)
            height = gr.Number(None, label=WORDS.height, info=WORDS.size_help, precision=0, minimum=0, maximum=4096)
    return {
        "prompt": prompt, "mixer": mixer, "add": add, "make": make, "cancel": cancel, "base": base,
        "negative": negative, "seed": seed, "die": die, "count": count, "steps": steps, "guidance": guidance,
        "scheduler": scheduler, "width": width, "height": height,
    }  # fmt: skip


def _pictures() -> dict[str, gr.components.Component]:
    """The right side: one picture with its strip, or a sheet."""
    with gr.Tabs(selected="picture", elem_id="preview-modes") as modes:
        with gr.Tab(WORDS.tab_picture, id="picture"):
            view = widget("preview_viewer", "viewer", viewer(Scene(), []), asdict(WORDS.viewer))
        with gr.Tab(WORDS.tab_sheet, id="sheet"):
            gr.HTML(f'<p class="intro">{text(WORDS.sheet_intro)}</p>')
            with gr.Row():
                prompts = gr.Textbox(
                    label=WORDS.sheet_prompts,
                    info=WORDS.sheet_prompts_help,
                    lines=3,
                    max_lines=8,
                    elem_id="sheet-prompts",
                )
                with gr.Column(min_width=240):
                    kind = gr.Radio(
                        [
                            (WORDS.by_strength, "strengths"),
                            (WORDS.by_checkpoint, "checkpoints"),
                            (WORDS.by_style, "styles"),
                        ],
                        value="strengths",
                        label=WORDS.sheet_columns,
                        info=WORDS.sheet_columns_help,
                        elem_id="sheet-kind",
                    )
                    strengths = gr.Textbox(
                        "0, 0.5, 1, 1.5",
                        label=WORDS.sheet_strengths,
                        info=WORDS.sheet_strengths_help,
                        elem_id="sheet-strengths",
                    )
            make_sheet = gr.Button(WORDS.make_sheet, variant="primary", elem_id="sheet-make")
            sheet = gr.HTML(sheet_html(None, None), elem_id="sheet-view", apply_default_css=False)
    return {
        "modes": modes, "viewer": view, "prompts": prompts, "kind": kind, "strengths": strengths,
        "make_sheet": make_sheet, "sheet": sheet,
    }  # fmt: skip

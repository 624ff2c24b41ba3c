"""Texts of the Preview and Library tabs; part of `app.texts.Texts`, apart only because one file would be long.

``{braces}`` are filled by `str.format` or by the widgets' scripts; texts are plain, never HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class MixerTexts:
    """The rows of styles in the Preview tab."""

    styles: str = "Styles in the picture"
    no_styles: str = "No style yet: this draws the base alone."
    strength_of: str = "Strength of {name}"
    strength_number: str = "Strength of {name} as a number"
    strength_help: str = "0 is the base alone, 1 the style as it was trained; below 0 turns it into its opposite."
    mark_base: str = "0 base"
    mark_trained: str = "1 as trained"
    version_of: str = "State of {name}"
    version_final: str = "finished"
    version_live: str = "now"
    version_step: str = "step {step}"
    live: str = "in training"
    trigger: str = "+ {words}"
    trigger_help: str = "Put the words that call this style into the prompt."
    focus: str = "on the strip"
    focus_help: str = "The filmstrip varies this style; the others stay as they are."
    remove: str = "Remove {name}"


@dataclass(frozen=True)
class ViewerTexts:
    """The picture, its wipe and the filmstrip."""

    nothing: str = (
        "Describe a picture and press Make picture. It appears here beside the same picture by the base alone."
    )
    wipe: str = "Wipe between base and style"
    wipe_value: str = "base on {percent} % of the picture"
    base: str = "base"
    at_strength: str = "strength {strength}"
    nearest: str = "{strength} is not made yet"
    alt: str = "{prompt}, strength {strength}"
    pictures: str = "Pictures"
    picture_number: str = "Picture {number}, seed {seed}"
    save: str = "Save PNG"
    progress: str = "Progress of the picture"
    film: str = "By strength"
    film_of: str = "{name}, by strength"
    frame: str = "Show strength {strength}"
    frame_waiting: str = "Strength {strength}, not made yet"


@dataclass(frozen=True)
class ResultsTexts:
    """Pictures made before."""

    results: str = "Pictures made before"
    no_results: str = "What you make is kept here with its settings."
    use: str = "Show again with its settings: {caption}"
    use_help: str = "Show this again and take up its settings"
    remove_result: str = "Remove from the gallery: {caption}"
    remove_short: str = "Remove"
    removed: str = "Removed."
    undo: str = "Undo"


@dataclass(frozen=True)
class PreviewTexts:
    """The Preview tab."""

    mixer: MixerTexts = field(default_factory=MixerTexts)
    viewer: ViewerTexts = field(default_factory=ViewerTexts)
    results: ResultsTexts = field(default_factory=ResultsTexts)

    prompt: str = "Prompt"
    prompt_help: str = "What the picture shows; with the words that call your style it shows more of it."
    prompt_placeholder: str = "a lighthouse on a cliff"
    add_style: str = "Add a style"
    add_help: str = "Its look is mixed into the picture, as strongly as you set it."
    add_none: str = "Train or import a style first"
    in_training: str = "{name} (in training, step {step})"
    make: str = "Make picture"
    cancel: str = "Stop"
    more: str = "More settings"
    negative: str = "Negative prompt"
    negative_help: str = "What the picture should not show."
    seed: str = "Seed"
    seed_help: str = "The noise a picture begins with; the same seed gives the same picture again."
    die: str = "Roll a new seed"
    steps: str = "Steps"
    steps_help: str = "More steps are cleaner and take longer."
    guidance: str = "Guidance"
    guidance_help: str = "How closely the picture follows the prompt; empty suits the base, high turns harsh."
    scheduler: str = "Scheduler"
    scheduler_help: str = "The way noise becomes a picture; details differ, and some need fewer steps."
    width: str = "Width, pixels"
    height: str = "Height, pixels"
    size_help: str = "Empty is the size the base was made for; far from it shapes repeat or fall apart."
    count: str = "Pictures"
    count_help: str = "Each has the next seed, so you see how much is chance."
    base: str = "Base"
    base_help: str = "The model that draws; a style looks right on the one it was trained on."
    bundled: str = "Bundled icons"

    tab_picture: str = "Picture"
    tab_sheet: str = "Sheet"
    made_before: str = "Made before"

    waiting: str = "Waiting for the worker."
    drawing: str = "Drawing."
    drawing_film: str = "Filling the filmstrip."
    stopped: str = "Stopped; what was finished is kept."
    live_now: str = "Drawn with the weights of that moment; make it again to see how far it has come."
    changed: str = "The settings have changed. Press Make picture to see them."
    slow: str = "A picture takes about {time} here. Press Make picture to see this strength."
    make_film: str = "Fill the strip"
    make_film_in: str = "Fill the strip, about {time}"
    no_prompt: str = "no prompt"
    seed_place: str = "seed {seed}"
    seed_number: str = "seed {seed}"
    steps_number: str = "{steps} steps"
    guidance_number: str = "guidance {guidance}"
    style_at: str = "{name} {strength}"
    only_base: str = "base alone"
    gone: str = "a deleted style"

    sheet_intro: str = "One labelled picture that compares: a row for each prompt, a column for each thing you vary."
    sheet_prompts: str = "Prompts, one a line"
    sheet_prompts_help: str = "Each becomes a row; empty uses the prompt at the left."
    sheet_columns: str = "Columns"
    sheet_columns_help: str = "What changes from column to column; everything else stays the same, the seed too."
    by_strength: str = "Strengths"
    by_checkpoint: str = "Checkpoints"
    by_style: str = "Styles"
    sheet_strengths: str = "Strengths"
    sheet_strengths_help: str = "Numbers from -1 to 2 with commas between; 0 is the base."
    make_sheet: str = "Make sheet"
    sheet_nothing: str = "The sheet appears here."
    sheet_alt: str = "Sheet of {rows} rows and {columns} columns"
    sheet_save: str = "Save sheet as PNG"
    sheet_detail: str = "Sheet, {rows} by {columns}"
    sheet_needs_style: str = "Add a style at the left first, then a sheet can compare with it."
    sheet_needs_checkpoints: str = "{name} has no checkpoints that could be compared. Choose another kind of columns."
    sheet_needs_two: str = "Add a second style at the left to compare styles, or choose another kind of columns."
    sheet_bad_strength: str = "{value!r} is no strength: write numbers from -1 to 2 with commas between."
    sheet_too_large: str = (
        "{rows} rows and {columns} columns are {count} pictures, but a sheet has at most {most}. Leave some out."
    )
    column_base: str = "base"
    column_strength: str = "{strength}"
    column_step: str = "step {step}"
    column_final: str = "finished"
    column_live: str = "now"


@dataclass(frozen=True)
class CardTexts:
    """The grid of the Library tab."""

    styles: str = "Styles"
    open: str = "Open {name}"


@dataclass(frozen=True)
class LibraryTexts:
    """The Library tab."""

    cards: CardTexts = field(default_factory=CardTexts)

    empty: str = "Styles you have trained or imported appear here. Train one, or bring in a .safetensors file."
    no_match: str = "No style matches. Search for less, or show all bases."
    search: str = "Search"
    search_placeholder: str = "Name or trigger"
    family: str = "Base"
    all_families: str = "All bases"
    import_file: str = "Import a style file"
    importing: str = "Checking {name}."
    imported: str = "{name} is in the library."
    rank: str = "rank {rank}"
    nothing_open: str = "Choose a style to see what it is, how it learned, and to take it along."
    close: str = "Close"
    name: str = "Name"
    name_help: str = "Also the name of the downloaded file. Enter keeps it."
    renamed: str = "Now it is called {name}."
    try_it: str = "Open in Preview"
    download: str = "Download"
    download_help: str = "Opens in A1111, Forge, ComfyUI, InvokeAI and diffusers (kohya layout)"
    download_diffusers: str = "Diffusers layout"
    again: str = "Train again from these settings"
    delete: str = "Delete"
    delete_question: str = "Delete {name}? Its file, samples and checkpoints go to the trash for 30 days."
    delete_yes: str = "Yes, delete"
    delete_no: str = "Keep it"
    deleted: str = "{name} is deleted."
    undo: str = "Undo"
    restored: str = "{name} is back."

    about: str = "About"
    trigger: str = "Trigger"
    base: str = "Base"
    size: str = "Size"
    made: str = "Made"
    origin: str = "Origin"
    trained_here: str = "trained here"
    imported_from: str = "imported"
    rank_label: str = "Rank"
    layout: str = "Layout"
    layouts: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({"kohya": "kohya", "diffusers": "diffusers (PEFT)"})
    )
    duration: str = "Training took"
    steps: str = "Steps"
    verified: str = "Verified"
    learning: str = "How it learned"
    samples: str = "Samples while it learned"
    sample_alt: str = "{prompt}, step {step}"
    at_step: str = "step {step}"
    checkpoints: str = "Checkpoints"
    try_checkpoint: str = "Try step {step} in Preview"
    metadata: str = "What the file says"
    no_metadata: str = "The file carries no metadata."
    sheet: str = "Base and style"
    sheet_alt: str = "Base beside {name}"

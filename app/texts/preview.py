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
    add: str = "Add a style ..."
    add_label: str = "Add a style to the picture"
    add_none: str = "Train or import a style first"
    strength_number: str = "Strength of {name}"
    strength_help: str = "0 is the base alone, 1 the style as it was trained; below 0 turns it into its opposite."
    strength: str = "strength"
    version_of: str = "State of {name}"
    version_final: str = "finished"
    version_live: str = "now"
    version_step: str = "step {step}"
    live: str = "in training"
    trigger: str = "+ {words}"
    trigger_help: str = "Put the words that call this style into the prompt."
    focus_help: str = "The slider under the picture moves this style; the others stay as they are."
    remove: str = "Remove {name}"


@dataclass(frozen=True)
class ViewerTexts:
    """The picture, its wipe, its strength and the filmstrip."""

    nothing: str = (
        "Describe a picture and press Make picture. It appears here beside the same picture by the base alone."
    )
    wipe: str = "Wipe between base and style"
    wipe_value: str = "base on {percent} % of the picture"
    base: str = "base"
    at_strength: str = "strength {strength}"
    at_strength_made: str = "strength {strength}, {made}"
    nearest: str = "{strength} is not made yet"
    before: str = "the picture before"
    alt: str = "{prompt}, strength {strength}"
    pictures: str = "Pictures"
    picture_number: str = "Picture {number}, seed {seed}"
    save: str = "Save PNG"
    larger: str = "Larger"
    close: str = "Close"
    stop: str = "Stop"
    progress: str = "Progress of the picture"
    seconds: str = "Drawing, {seconds} s"
    seconds_of: str = "Drawing, {seconds} of about {expected} s"
    waiting: str = "Waiting, {seconds} s"
    strength_of: str = "Strength of {name}"
    strength_help: str = "0 is the base alone, 1 the style as it was trained; below 0 turns it into its opposite."
    mark_base: str = "0 base"
    mark_trained: str = "1 as trained"
    film: str = "By strength"
    frame: str = "Strength {strength}"
    frame_waiting: str = "Strength {strength}, not made yet"


@dataclass(frozen=True)
class ResultsTexts:
    """Pictures made before."""

    results: str = "Pictures made before"
    no_results: str = "What you make is kept here with its settings."
    use_help: str = "Show this again and take up its settings"
    remove_result: str = "Remove from the gallery: {caption}"
    remove_short: str = "Remove"
    removed: str = "Removed."
    undo: str = "Undo"


def _axes() -> Mapping[str, str]:
    return MappingProxyType(
        {
            "prompts": "Prompts",
            "strengths": "Strengths",
            "checkpoints": "Checkpoints",
            "styles": "Styles",
            "seeds": "Seeds",
            "steps": "Steps",
            "guidance": "Guidance",
            "schedulers": "Schedulers",
        }
    )


def _axis_help() -> Mapping[str, str]:
    return MappingProxyType(
        {
            "prompts": "One a line; empty uses the prompt at the left.",
            "strengths": "Numbers from -1 to 2 with commas between; 0 is the base.",
            "seeds": "Whole numbers with commas between.",
            "steps": "Whole numbers from 1 to 200 with commas between.",
            "guidance": "Numbers from 0 to 30 with commas between.",
            "schedulers": "Their names, as under More settings, with commas between.",
        }
    )


def _axis_examples() -> Mapping[str, str]:
    return MappingProxyType(
        {
            "strengths": "0, 0.5, 1, 1.5",
            "seeds": "1, 2, 3, 4",
            "steps": "5, 10, 20, 40",
            "guidance": "1, 2, 4, 8",
            "schedulers": "DDIM, Euler, Euler a, UniPC",
        }
    )


@dataclass(frozen=True)
class PreviewTexts:
    """The Preview tab."""

    mixer: MixerTexts = field(default_factory=MixerTexts)
    viewer: ViewerTexts = field(default_factory=ViewerTexts)
    results: ResultsTexts = field(default_factory=ResultsTexts)

    prompt: str = "Prompt"
    prompt_help: str = "What the picture shows; with the words that call your style it shows more of it."
    prompt_placeholder: str = "a lighthouse on a cliff"
    subjects_help: str = "One press puts it into the prompt; other words give a picture too, of what is nearest."
    tokens: str = "{count} of {limit} tokens"
    tokens_hint: str = (
        "The text encoder reads {window} tokens at a time: a longer prompt is read in up to three windows, each by "
        "itself, and BREAK begins the next one."
    )
    prompt_lost: str = "The prompt's end is not read: it is longer than {limit} tokens or three windows."
    negative_lost: str = "The negative prompt's end is not read: it is longer than {limit} tokens or three windows."
    in_training: str = "{name} (in training, step {step})"
    make: str = "Make picture"
    cancel: str = "Stop"
    more: str = "More settings"
    negative: str = "Negative prompt"
    negative_help: str = (
        "What the picture should not show. Here and in the prompt (word:1.2) weighs a word more, (word:0.8) less; long "
        "ones are read in windows of 75 tokens, at most three."
    )
    seed: str = "Seed"
    seed_help: str = "The noise a picture begins with; the same seed gives the same picture again."
    die: str = "Roll a new seed"
    steps: str = "Steps"
    block_down: str = "Style on the way down"
    block_down_help: str = "How much the styles change what is seen in the picture; 0 takes that from the base."
    block_mid: str = "Style in the middle"
    block_mid_help: str = "How much the styles change the whole: subject and arrangement."
    block_up: str = "Style on the way up"
    block_up_help: str = "How much the styles change how it is drawn: lines, surfaces and colours."
    block_style: str = "Style in SDXL's block of style"
    block_style_help: str = "How much of the look comes through, in place of the slider for the way up."
    block_content: str = "Style in SDXL's block of content"
    block_content_help: str = "0 keeps what the training images show out of the picture, as B-LoRA does."
    steps_help: str = "More steps are cleaner and take longer."
    guidance: str = "Guidance"
    guidance_help: str = "How closely the picture follows the prompt; 1 leaves it free, high turns harsh."
    guidance_placeholder: str = "what suits the base"
    scheduler: str = "Scheduler"
    scheduler_help: str = "The way noise becomes a picture; details differ, and some need fewer steps."
    width: str = "Width, pixels"
    width_help: str = "Far from the size the base was made for, shapes repeat or fall apart."
    width_placeholder: str = "the base's own"
    height: str = "Height, pixels"
    height_help: str = "A multiple of 8, or for some bases of 32; a complaint says which is near."
    height_placeholder: str = "the base's own"
    count: str = "Pictures"
    count_help: str = "Each has the next seed, so you see how much is chance."
    base: str = "Base"
    base_help: str = "The model that draws; a style looks right on the one it was trained on."
    keep_prompt: str = "Keep this prompt"
    keep_prompt_help: str = "Kept prompts can be used again with one click."
    kept_prompts: str = "Kept prompts ({count})"
    forget_prompt: str = "Forget: {prompt}"
    begin: str = "Begin with a picture"
    begin_help: str = "The result keeps its shapes and colours as far as you let it, and shows it in your style."
    begin_choose: str = "Choose a picture"
    begin_other: str = "Choose another"
    begin_remove: str = "Without a picture"
    begin_alt: str = "The picture to begin with"
    begun_at: str = "from a picture, {percent} % changed"
    change: str = "How much may change"
    change_help: str = "Low keeps the picture, high leaves only its broad shapes; 1 is all."
    bundled: str = "Bundled icons"
    bad_base: str = "Name a base: 'bundled', a Hugging Face id, a folder or a .safetensors file."
    bad_count: str = "The number of pictures is {count}, but should be 1 to {most}."
    too_many_styles: str = "A picture blends at most {most} styles. Remove one first."

    tab_picture: str = "Picture"
    tab_sheet: str = "Sheet"
    made_before: str = "Made before"

    waiting: str = "Waiting for the worker."
    drawing: str = "Drawing."
    drawing_film: str = "Filling the filmstrip."
    stopped: str = "Stopped; what was finished is kept."
    live_now: str = "Drawn with the weights of that moment; make it again to see how far it has come."
    learned_on: str = "The style has learned on since this was drawn. Press Make picture to see it as it is now."
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

    sheet_rows: str = "Rows"
    sheet_rows_help: str = "What changes from row to row."
    sheet_columns: str = "Columns"
    sheet_columns_help: str = "What changes from column to column; all else stays the same, the seed too."
    sheet_values: str = "Values"
    axes: Mapping[str, str] = field(default_factory=_axes)
    axis_help: Mapping[str, str] = field(default_factory=_axis_help)
    axis_examples: Mapping[str, str] = field(default_factory=_axis_examples)
    make_sheet: str = "Make sheet"
    sheet_nothing: str = "The sheet appears here."
    sheet_alt: str = "Sheet of {rows} rows and {columns} columns"
    sheet_save: str = "Save sheet as PNG"
    sheet_detail: str = "Sheet, {rows} by {columns}"
    sheet_needs_style: str = "Add a style at the left first, then a sheet can compare with it."
    sheet_needs_checkpoints: str = "{name} has no checkpoints that could be compared. Choose another kind of columns."
    sheet_needs_two: str = "Add a second style at the left to compare styles, or choose another kind of columns."
    sheet_same_axes: str = "Rows and columns both vary {kind}. Choose two different things to compare."
    sheet_two_choices: str = (
        "Styles and checkpoints cannot be compared at once, as each picture shows one of them alone."
    )
    sheet_bad_value: str = (
        "{value!r} does not suit {kind}: write numbers from {lowest} to {highest} with commas between."
    )
    sheet_bad_scheduler: str = "{value!r} is no scheduler. These are known: {known}."
    sheet_too_large: str = (
        "{rows} rows and {columns} columns are {count} pictures, but a sheet has at most {most}. Leave some out."
    )
    column_base: str = "base"
    column_step: str = "step {step}"
    column_final: str = "finished"
    column_live: str = "now"


def _download_help() -> Mapping[str, str]:
    return MappingProxyType(
        {
            "kohya": "Opens in A1111, Forge, ComfyUI, InvokeAI and diffusers",
            "diffusers": "For diffusers and stable-diffusion.cpp; other programs read it in part or not at all",
        }
    )


@dataclass(frozen=True)
class LibraryTexts:
    """The Library tab."""

    styles: str = "Styles"
    empty: str = "Styles you have trained or imported appear here. Train one, or bring in a .safetensors file."
    no_match: str = "No style matches. Search for less, or show all bases."
    search: str = "Search"
    search_placeholder: str = "Name or trigger"
    family: str = "Base"
    all_families: str = "All bases"
    import_file: str = "Import a style file"
    importing: str = "Checking {name}."
    imported: str = "{name} is in the library."
    alpha_asked: str = (
        "{name} does not say its alpha, by which its strength is counted, and with a wrong one it would be too weak or "
        "too strong. Look where the file comes from. Where nothing is said, take the rank, as diffusers does."
    )
    alpha: str = "Alpha"
    alpha_counts: str = "Counts as"
    alpha_plain: str = "alpha / rank (LoRA)"
    alpha_root: str = "alpha / \u221arank (rsLoRA)"
    alpha_import: str = "Import with this alpha"
    alpha_rank: str = "Take the rank"
    alpha_cancel: str = "Do not import"
    alpha_said: str = "{alpha}, told at import"
    alpha_is_rank: str = "rank"
    rank: str = "rank {rank}"
    best_at: str = "best at strength {strength}"
    no_pictures: str = "No picture came along. Open it in Preview to see what it does."
    close: str = "Close"
    name: str = "Name"
    name_help: str = "Also the name of the downloaded file. Enter keeps it."
    renamed: str = "Now it is called {name}."
    try_it: str = "Open in Preview"
    download: str = "Download"
    download_help: Mapping[str, str] = field(default_factory=_download_help)
    download_small: str = "Opens in Patina and diffusers; no other program knows its base"
    download_other: str = "Download as {layout}"
    again: str = "Train again from these settings"
    delete: str = "Delete"
    deleted: str = "{name} is in the trash, for 30 days."
    undo: str = "Undo"
    restored: str = "{name} is back."

    base: str = "Base"
    size: str = "Size"
    made: str = "Made"
    origin: str = "Origin"
    origins: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType(
            {"trained": "trained here", "imported": "imported", "linked": "in a folder of yours"}
        )
    )
    lies_in: str = "File"
    twins: str = "Same weights as"
    tags: str = "Tags"
    tags_help: str = "Words to find it again, with commas between. Enter keeps them."
    tags_placeholder: str = "Add tags"
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
    sheet_alt: str = "Base beside {name}"

    rework: str = "Make another style of it"
    rework_help: str = "Each of these is saved as a style of its own; this one stays as it is."
    lower_rank: str = "Rank"
    save_smaller: str = "Save a smaller copy"
    part: str = "Keep only"
    parts: Mapping[str, str] = field(
        default_factory=lambda: {
            "cross": "what follows the prompt (cross-attention)",
            "self": "what follows the picture (self-attention)",
            "style": "the style half (B-LoRA)",
            "content": "the content half (B-LoRA)",
        }
    )
    save_part: str = "Save that part"
    compare: str = "Compare with another style"
    compare_with: str = "Compare with"
    compare_now: str = "Compare"
    fact: str = "What differs"
    nothing: str = "\u2013"
    angle: str = "Angle between the two updates: {degrees} degrees (0: one style, 90: nothing in common)."
    sizes: str = "Size of the update at strength 1: {first} and {second}."
    layers_shared: str = "Both change {shared} layers; alone they change {first} and {second}."
    shared_title: str = "What both write along the same directions"
    shared_help: str = (
        "Down: the strongest directions of {first}, across: those of {second}. Light is nothing in common, dark is one "
        "within the other."
    )
    shared_summary: str = "{first} of the strongest of each (by chance {chance}), {whole} of all."
    look_inside: str = "Look inside"
    look_inside_help: str = (
        "Shows how much the style changes each layer, along how many directions, and whether a smaller file would do."
    )
    look_inside_now: str = "Look inside"
    sizes_of_layers: str = "Size of each layer's update, beside the size of its weight"
    norms_of_layers: str = "Size of each layer's update"
    largest_update: str = "Largest in {layer}: {size}."
    directions_title: str = "Strength of the directions, strongest first; effective rank holds {energy}"
    directions_summary: str = "A layer's effective rank is {mean} on average, {most} at most. The band is the range."
    smaller_would_do: str = "Rank {rank} would do: it keeps {kept} of the update."
    save_at_rank: str = "Save a copy of rank {rank}"
    rank_is_used: str = "Every lower rank would leave out more than {part} of the update."
    no_base_here: str = "The base is not known or not on this machine, so that sizes are told without its weights."
    kind_of_layer: str = "Layers"
    how_many: str = "How many"
    effective_rank: str = "Effective rank"
    size_beside_weight: str = "Update / weight"
    size_of_update: str = "Update"
    turned_up: str = "Turned up"
    merge_with: str = "Merge with"
    own_strength: str = "Strength of {name}"
    other_strength: str = "Strength of the other"
    every_rank: str = "all, exact"
    save_merged: str = "Save the merged style"
    no_partner: str = "There is no other style for the same base to merge it with."
    reworked: str = "{name} is in the library."
    download_half: str = "Download in half precision, half the size"
    share: str = "Share"
    share_help: str = (
        "Everything that model sites and other tools want beside the file: pictures, "
        "settings, a model card. Nothing is sent until you say so."
    )
    private: str = "Captions, names of images, paths"
    private_out: str = "take them out"
    private_in: str = "leave them in"
    license: str = "Licence"
    license_hint: str = "such as cc-by-4.0"
    base_on_hub: str = "Base on the Hugging Face hub"
    pack: str = "Pack"
    download_zip: str = "Download as zip ({size})"
    push_help: str = (
        "Or send these files to the Hugging Face hub, with the token that its own client "
        "keeps on this machine (hf auth login)."
    )
    repository: str = "Repository"
    seen_by: str = "Seen by"
    everybody: str = "everybody"
    only_me: str = "only me"
    push: str = "Send to the hub"
    push_ask: str = "Send these {count} files to the Hugging Face hub now?"
    sent: str = "It is at {address}."

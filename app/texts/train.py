"""The texts of the Train tab, see `app.texts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.texts.settings import in_english


@dataclass(frozen=True)
class EditorTexts:
    """The window with one image, its caption, and the part of it that is used."""

    open: str = "Look closer, write its caption, choose a part"
    edit: str = "Edit {name}"
    caption: str = "Caption"
    place: str = "{number} of {count}"
    before: str = "Image before"
    next: str = "Next image"
    keys: str = "Page up and page down change the image; so do the arrow keys outside the caption."
    times: str = "How often it is learned, beside the others"
    crop_help: str = "Drag over the picture to choose the part that is learned."
    focus: str = "What stays in sight of {name}"
    focus_help: str = "The shape that fits best leaves the veiled part out: drag the dot to what should stay in sight."
    crop: str = "Use this part"
    whole: str = "Use the whole image"
    remove: str = "Remove"
    close: str = "Close"


@dataclass(frozen=True)
class TrainTexts:
    """The Train tab; ``{braces}`` are filled with `str.format`."""

    # images
    images: str = "Images"
    drop: str = "Drop images or a folder here"
    choose_files: str = "Choose files"
    choose_folder: str = "Choose a folder"
    other_set: str = "Or images of another style"
    set_option: str = "{name}: {images}"
    take_set: str = "Add them"
    drop_hint: str = (
        "PNG, JPEG, HEIC, WebP, GIF, BMP or TIFF; text files of the same name become captions, "
        "cat-mask.png is the mask of cat.png. Ten to thirty images suit most styles."
    )
    sending: str = "Sending {done} of {total} files"
    reading: str = "Reading the images"
    reading_count: str = "Reading the images, {done} of {total}"
    one_image: str = "1 image"
    many_images: str = "{count} images"
    welcome: str = "Train a style from a handful of images"
    welcome_text: str = (
        "Patina looks at your images and learns their style as a small file that works with Stable Diffusion. "
        "Drop your images below, or try it first with a set that comes along."
    )
    tour_title: str = "A tour of two minutes"
    tour: tuple[str, ...] = (
        "Drop eight to thirty images of one style. What is wrong with any of them is said on it, and how to mend it.",
        "Say in a few words what each image shows. How it looks need not be said: that is what is learned. Press an "
        "image to see it large and to choose a part of it.",
        "Choose the base, the model that learns. The small one that comes along trains in minutes without a graphics "
        "card; a style for Stable Diffusion works in other programs, too.",
        "Give the style a name and a trigger, the words that call it in a prompt, and press Train. How long it takes "
        "stands above the button.",
        "While it trains you see what it draws by now. Stop it whenever you like that: what was learned is kept.",
        "In Preview the slider under the picture sets how strong the style is; 0 is the base alone. A sheet compares "
        "strengths, styles or seeds in one picture.",
        "The Library keeps every style. Download one for another program, blend two, or share it.",
        "Nothing is lost when the page is closed: what trains goes on, and what was deleted lies in the trash under "
        "Settings for 30 days.",
    )
    try_set: str = "Train {title}"
    try_set_hint: str = "{count} images with captions, {steps} steps on the small model that comes along."
    look_at_set: str = "Look at the images first"
    pair_alt: str = "The same prompt drawn {which} the style was learned"
    remove: str = "Remove {name}"
    remove_kind: Mapping[str, str] = field(
        default_factory=lambda: {
            "near_duplicate": "Remove near-duplicates",
            "exact_duplicate": "Remove duplicates",
            "too_small": "Remove small images",
            "aspect": "Remove odd shapes",
        }
    )
    kinds: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "unreadable": ("unreadable", "unreadable"),
            "exact_duplicate": ("duplicate", "duplicates"),
            "near_duplicate": ("near-duplicate", "near-duplicates"),
            "too_small": ("small", "small"),
            "aspect": ("odd shape", "odd shapes"),
            "rotated": ("turned upright", "turned upright"),
            "transparent": ("transparent", "transparent"),
            "animated": ("animated", "animated"),
            "caption_missing": ("without caption", "without caption"),
            "caption_long": ("caption too long", "captions too long"),
            "caption_encoding": ("caption read as Chinese", "captions read as Chinese"),
            "not_read": ("not read", "not read"),
            "repeats": ("note", "notes"),
            "mask": ("mask", "masks"),
        }
    )
    summary: str = "{images}: {facts}."
    summary_plain: str = "{images}."
    kind_count: str = "{count} {kind}"
    all_good: str = "nothing to mend"
    removed: str = "Removed:"
    put_back: str = "Put {name} back"
    put_all_back: str = "Put all back"
    not_taken: str = "Not taken:"
    crop_hint: str = (
        "{width} x {height} pixels; the bright part is what training sees, as {bucket_width} x {bucket_height}."
    )

    # captions
    captions: str = "Captions"
    captions_hint: str = (
        "Say what is in each picture, not how it looks: the look is what the style learns. "
        "The trigger is added by itself."
    )
    caption_of: str = "Caption of {name}"
    caption_empty: str = "what is in the picture"
    edit_all: str = "Show all {count}"
    without_caption: tuple[str, str] = (
        "1 of {count} images has no caption. Say what is in it, or the style learns that, too.",
        "{missing} of {count} images have no caption. Say what is in them, or the style learns that, too.",
    )
    too_long: tuple[str, str] = (
        "1 caption is longer than the {limit} tokens that the base reads; its end is lost.",
        "{long} captions are longer than the {limit} tokens that the base reads; their ends are lost.",
    )
    not_english: tuple[str, str] = (
        "1 caption is in Chinese, Japanese or Korean. The base's text model hardly knows anything but English: "
        "write it in English.",
        "{count} captions are in Chinese, Japanese or Korean. The base's text model hardly knows anything but "
        "English: write them in English.",
    )
    row_missing: str = "no caption"
    row_long: str = "too long"
    row_not_english: str = "not English"
    tokens: str = "{count} of {limit}"
    tokens_in_windows: str = "{parts} of {limit}"
    tokens_hint: str = (
        "Tokens of the caption with the trigger. The text encoder reads {window} at a time: a longer caption is read "
        "in up to three windows, each by itself, and what is beyond {limit} tokens is not read."
    )
    helpers: str = "Change many at once"
    add_words: str = "Words to add to all"
    add: str = "Add to all"
    add_trigger: str = "Add the trigger to all"
    find: str = "Find"
    replace: str = "Replace with"
    replace_all: str = "Replace in all"
    from_names: str = "Take from file names"
    changed: str = "{count} captions changed."
    changed_one: str = "1 caption changed."
    changed_none: str = "No caption changed."

    # captions that a model writes
    writer: str = "Have captions written for you"
    writer_hint: str = (
        "A model looks at each image and says what is in it; what it says of the look is left out. Captions that you "
        "wrote stay as they are. It works in the background, one image at a time."
    )
    writer_models: Mapping[str, str] = field(
        default_factory=lambda: {
            "florence-2 short": "Florence-2: a phrase for each",
            "florence-2 long": "Florence-2: some sentences for each",
            "blip short": "BLIP: a phrase for each",
        }
    )
    writer_model: str = "Model"
    writer_other: str = "Or one of your own: a folder, or its Hugging Face id"
    writer_missing: str = "Write the missing ones"
    writer_all: str = "Write all anew"
    writer_all_ask: str = "Write all captions anew, your own included?"
    writer_looking: str = "Looking for the model"
    writer_open: str = "Have them written"
    writer_words: str = "What is left out"
    writer_words_hint: str = (
        "Phrases about how a picture is made, one a line. * stands for other words: the beginning of a sentence in "
        "front, a few words in the middle, and the rest up to the next comma at the end."
    )
    writer_words_usual: str = "The usual list"
    writer_download: str = "{model} is not on this machine. It is {size}, fetched once from the Hugging Face hub."
    writer_fetch: str = "Download it and write"
    writer_stop: str = "Stop"
    writer_stages: Mapping[str, str] = field(
        default_factory=lambda: {
            "downloading": "Downloading the model: {done} of {total}.",
            "waiting": "{done} of {total} images looked at; waiting until the training pauses or ends.",
            "writing": "{done} of {total} images looked at.",
            "done": "{written} captions written, {total} images looked at.",
            "cancelled": "Stopped after {done} of {total} images; {written} captions written.",
        }
    )
    writer_unsaid: str = "Of {count} only the look was spoken; their captions stay empty."

    # base
    base: str = "Base"
    base_hint: str = "The model that learns the style. A style works with models of the same family."
    base_picks: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "bundled": ("Bundled icons", "Small and quick, comes along and runs on any machine; draws simple icons."),
            "stable-diffusion-v1-5/stable-diffusion-v1-5": (
                "Stable Diffusion 1.5, 512 px",
                "From the Hugging Face hub, 2 to 4 GB; wants a graphics card with 4 GB.",
            ),
            "stabilityai/stable-diffusion-xl-base-1.0": (
                "Stable Diffusion XL, 1024 px",
                "From the Hugging Face hub, 7 GB; wants a graphics card with 8 GB.",
            ),
        }
    )
    base_other: str = "Another model"
    base_other_hint: str = "A Hugging Face id, a folder, or a .safetensors file on this machine."
    editor: EditorTexts = field(default_factory=EditorTexts)
    bad_focus: str = "Drag the dot over the picture to say what should stay in sight."
    bad_crop: str = "Drag over the picture first to choose a part of it."
    finding: str = "{message}: {action}."
    base_here: str = "On this machine"
    base_here_none: str = "Choose a model"
    base_source: str = "Model"
    base_placeholder: str = "owner/name, or a path"
    check: str = "Check"
    checking: str = "Looking at the model"
    base_fits: str = "{title}: {facts}."

    # setup
    setup: str = "Style"
    name: str = "Name"
    name_help: str = "What the style and its file are called."
    trigger: str = "Trigger"
    trigger_help: str = "Words that call the style in a prompt, such as 'ink style'."
    preset: str = "Pace"
    presets: Mapping[str, str] = field(
        default_factory=lambda: {"quick": "Quick", "balanced": "Balanced", "thorough": "Thorough"}
    )
    find_rate: str = "Find the learning rate for me"
    find_rate_help: str = "Six rates are tried side by side first, and the worse half drops out on the way."
    dials: Mapping[str, tuple[str, str, str, str]] = field(
        default_factory=lambda: {
            "strength": (
                "Style strength",
                "gentle",
                "strong",
                "How boldly the style changes a picture; too strong and colours break.",
            ),
            "length": (
                "Length",
                "short",
                "long",
                "How long it looks at your images; too long and it copies them.",
            ),
            "detail": (
                "Detail",
                "broad",
                "fine",
                "How much detail the style can hold; finer makes a larger file.",
            ),
        }
    )
    dial_says: Mapping[str, str] = field(
        default_factory=lambda: {
            "strength": "learning rate {value}",
            "length": "{value} steps",
            "detail": "rank {value}",
        }
    )
    plan_steps: str = "{steps} steps"
    plan_time: str = "about {time}"
    plan_memory: str = "{memory} memory"
    plan_file: str = "file {size}"
    plan_measured: str = "Time as measured on this machine."
    plan_estimated: str = "Time is estimated; the first run measures it."
    plan_none: str = "Add images to see how long it takes."
    train: str = "Train"
    starting: str = "Starting"
    queue_it: str = "Add to the queue"
    to_advanced: str = "Every setting"
    advanced: str = "Advanced"
    advanced_hint: str = "Every setting, with what you will see change. Empty fields are chosen for you."
    chosen_for_you: str = "{value} (chosen for you)"
    left_empty: str = "chosen for you"
    answers: Mapping[str, str] = field(default_factory=lambda: {"yes": "Yes", "no": "No"})
    range: str = "From {least} to {most}."
    at_least: str = "At least {least}."
    reset_all: str = "Leave everything to the preset"
    section_names: Mapping[str, str] = field(
        default_factory=lambda: {
            "base": "Base",
            "data": "Images",
            "adapter": "Style weights",
            "optim": "Learning",
            "train": "Training",
            "samples": "Pictures while training",
            "judging": "Which state is best",
            "export": "File",
            "memory": "Memory",
        }
    )
    settings: Mapping[str, tuple[str, str]] = field(default_factory=in_english)

    # while it trains
    step_of: str = "{step} of {steps} steps"
    speed: str = "{value} images/s"
    left: str = "{time} left"
    took: str = "took {time}"
    phases: Mapping[str, str] = field(
        default_factory=lambda: {
            "loading": "Loading the base",
            "reading": "Reading the images",
            "caching": "Preparing the images",
            "measuring": "Measuring what fits",
            "racing": "Finding the learning rate",
            "training": "Training",
            "sampling": "Making sample pictures",
            "exporting": "Writing the file",
            "verifying": "Checking the file",
            "judging": "Comparing the saved states",
        }
    )
    stages: Mapping[str, str] = field(
        default_factory=lambda: {
            "loading": "Load",
            "preparing": "Prepare",
            "training": "Train",
            "pictures": "Last pictures",
            "file": "Write and check",
        }
    )
    counted: str = "{name}, {done} of {total}"
    since: str = "for {time} now"
    share: str = "{name}, {percent} %"
    states: Mapping[str, str] = field(
        default_factory=lambda: {
            "draft": "Draft",
            "queued": "Waiting in the queue",
            "training": "Training",
            "paused": "Paused",
            "finished": "Finished",
            "failed": "Stopped by an error",
            "cancelled": "Cancelled",
        }
    )
    starting_worker: str = "Starting"
    place: str = "place {place} in the queue"
    wishes: Mapping[str, str] = field(
        default_factory=lambda: {
            "pause": "It saves, then it pauses.",
            "stop": "It ends here: it draws its last pictures, then writes and checks the file.",
            "cancel": "It ends.",
        }
    )
    pause: str = "Pause"
    resume: str = "Resume"
    resume_without: str = "Go on without these images"
    stop_keep: str = "Stop and keep"
    stop_keep_help: str = "Ends now; the file holds what was learned so far."
    cancel: str = "Cancel"
    cancel_ask: str = "End this run without a file? What it saved is kept until you delete it."
    unqueue: str = "Take out of the queue"
    try_now: str = "Try it now"
    loss: str = "Loss"
    loss_smoothed: str = "running mean"
    loss_raw: str = "each step"
    loss_held: str = "held-out images"
    loss_axis: str = "steps"
    loss_summary: str = "Loss over steps: the running mean went from {first} to {last} by step {step}."
    loss_waits: str = (
        "The loss appears with the first steps. It is noisy; look at the pictures, not at small changes of it."
    )
    samples: str = "Pictures while it learns"
    subjects_help: str = "One press adds it to the prompts above, with the words that call the style."
    samples_waits: str = "The first pictures appear soon: what the base draws before it knows the style."
    sample_at: str = "step {step}"
    sample_base: str = "before"
    sample_after: str = "after"
    earlier: str = "Earlier"
    wipe: str = "Wipe between before and after"
    show_pair: str = "Show {prompt}"
    sample_alt: str = "{prompt}, at step {step}"
    before_after: str = "Before and after"
    plan: str = "What it does"
    plan_line: str = (
        "{images} images, {steps} steps of {batch} at {side} px, rank {rank}, learning rate {rate}, on {device}."
    )

    # finished
    open_preview: str = "Open in Preview"
    share_style: str = "Share"
    download: str = "Download"
    verified: str = "Checked: diffusers opens the file and draws the same picture"
    picks: str = "What was compared"
    picks_help: str = (
        "The same prompts, drawn with every saved state at several strengths. Style is how far they went from the base "
        "to your images, subject whether they still show what was asked for."
    )
    by_noise: str = (
        "Of the base's error on held-out images the style takes away {low}% under little noise (fine detail), "
        "{middle}% under half and {high}% under much (layout and colour)."
    )
    learned: str = "How each image was learned"
    learned_help: str = (
        "How much of the base's error on each of your images the style takes away. Images of one style are learned "
        "alike; one that stands out may be of another kind, have a caption that does not fit, or be learned by heart."
    )
    learned_standing: Mapping[str, str] = field(
        default_factory=lambda: {"least": "learned least", "most": "learned by heart"}
    )
    leave_out: str = "Leave out"
    leave_out_image: str = "Leave out {image} and train again"
    pick_grid: str = "How well style and subject go together, of 100. Click one to keep it in the file."
    pick_step: str = "Step"
    keep_ask: str = "Let the file hold {name}? It is written and checked anew."
    judge: str = "Compare the saved states"
    judge_again: str = "Compare again"
    judge_help: str = "Draws the same prompts with every saved state and keeps the one that is best."
    pick_name: str = "Step {step} at strength {strength}"
    pick_base: str = "The base"
    pick_scores: str = "style {style}, subject {subject}"
    pick_kept: str = "in the file"
    pick_excluded: Mapping[str, str] = field(
        default_factory=lambda: {
            "copying": "repeats {image}",
            "drift": "changes prompts without the trigger",
            "variety": "draws every seed alike",
        }
    )
    verified_other: str = "Checked: {first}"
    again: str = "Train again with changes"

    votes: str = "Which do you like better?"
    votes_help: str = (
        "Two saved states draw the same prompt; which is which stays hidden. After a few votes the one you prefer can "
        "be put into the file."
    )
    vote_left: str = "Left"
    vote_right: str = "Right"
    vote_same: str = "No difference"
    votes_side: Mapping[str, str] = field(
        default_factory=lambda: {"left": "The picture on the left", "right": "The picture on the right"}
    )
    votes_count: str = "{count} votes so far."
    votes_ranking: str = (
        "Your ranking: the chance to be preferred to the others, and where it lies in 90% of redrawn votes"
    )
    votes_place: str = "{score}% ({low} to {high}%), {count} votes"
    votes_open: str = "No state leads clearly yet."
    votes_leads: str = "You prefer {name}."
    votes_keep: str = "Keep it in the file"

    # where a run came from, and two of them side by side
    origin: str = "Trained again from {run}"
    origin_without: str = "{name}, without {image}"
    origin_gone: str = "The run that this one came from was deleted."
    compare: str = "Compare with the run shown"
    compare_title: str = "{first} beside {second}"
    compare_close: str = "Close the comparison"
    compare_origin: str = "Trained again from"
    compare_images: str = "Images"
    compare_steps: str = "Steps"
    compare_took: str = "Time"
    compare_kept: str = "In the file"
    compare_held: str = "loss {loss}, of the base {base}"
    compare_only: str = "Only {name} learned from {images}."
    compare_captions: str = "Captions differ for {images}."
    loss_ends: str = "{name}: {last} by step {step}"

    # runs
    runs: str = "Runs"
    runs_empty: str = "Your runs appear here."
    new_style: str = "New style"
    up: str = "Earlier"
    down: str = "Later"
    delete: str = "Delete"
    deleted: str = "{name} was deleted."
    undo: str = "Undo"
    untitled: str = "New style"
    live_state: str = "{name}: {state}."
    live_progress: str = "{name}: {percent} percent."
    dismiss: str = "Dismiss"
    gone: str = "That run is no longer here. Choose another, or begin a new style."
    upload_refused: str = "An upload did not arrive completely. Drop the files again."

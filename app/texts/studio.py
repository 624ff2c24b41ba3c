"""The texts of the Settings tab; see `app.texts`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SettingsTexts:
    """What concerns the whole studio."""

    help: str = "Help"
    language: str = "Language"
    hub: str = "Hugging Face"
    hub_help: str = (
        "A token opens models that ask for one, and lets you publish styles. It is kept by Hugging Face's own library "
        "on this machine, for all programs that use it, and is never shown."
    )
    token: str = "Token"
    token_kept: str = "A token is kept."
    no_token: str = "No token is kept."
    keep_token: str = "Keep"
    forget_token: str = "Forget the token"
    asking_hub: str = "Asking the hub"
    models: str = "Folders with models"
    models_help: str = "Models in them are offered as bases; they stay where they are."
    styles: str = "Folders with styles"
    styles_help: str = "Style files in them are shown in the Library and can be drawn with; they stay where they are."
    folder: Mapping[str, str] = field(
        default_factory=lambda: {"models": "Folder with models", "styles": "Folder with styles"}
    )
    folder_placeholder: str = "its whole path on the machine that Patina runs on"
    found_in: Mapping[str, str] = field(
        default_factory=lambda: {"models": "{count} models", "styles": "{count} styles"}
    )
    add_folder: str = "Look into it"
    remove_folder: str = "Remove"
    remove_named: str = "Look into {folder} no longer"
    space: str = "On the disk"
    clean: str = "Clean up ({size})"
    clean_help: str = "Cleaning up removes downloads and the caches of finished runs, which can be made again."
    cleaned: str = "{size} came free."
    nothing: str = "There is nothing to clean up."
    trash: str = "Trash"
    trash_help: str = "What was deleted stays here for 30 days."
    trash_empty: str = "It is empty."
    put_back: str = "Put back"
    put_back_named: str = "Put {name} back"
    empty_trash: str = "Empty the trash"
    empty_ask: str = "Remove all of it for good?"
    trash_emptied: str = "The trash is empty."
    not_in_trash: str = "This is not in the trash any more."
    copy: str = "A copy of the studio"
    copy_help: str = (
        "One file with all runs, pictures and styles; this studio goes on meanwhile. A copy is unpacked beside this "
        "studio, which stays as it is."
    )
    backup: str = "Download a copy"
    restore: str = "Unpack a copy"
    unpacking: str = "Unpacking"
    restored: str = (
        "{runs} runs, {size}, are in {folder}. End Patina and start it with PATINA_HOME set to that folder to use them."
    )
    health: str = "How it is"
    well: str = "All is well."
    wrong: str = "Not as it should be"
    repair: str = "Put right"
    about: str = "{device}. The studio lies in {home}."
    versions: str = "Versions"
    logs: str = "Logs"
    no_logs: str = "Nothing was written yet."
    report: str = "Report for a bug"
    report_help: str = (
        "The report is a zip archive of text files, without passwords, names and pictures. Look into it before you "
        "send it."
    )
    unknown: str = "The page asked for something that this studio does not know. Reload it."
    places: Mapping[str, str] = field(
        default_factory=lambda: {
            "runs": "Runs",
            "caches": "Caches of finished runs",
            "pictures": "Pictures",
            "styles": "Imported styles",
            "trash": "Trash",
            "downloads": "Downloads",
            "logs": "Logs",
            "free": "Free",
        }
    )

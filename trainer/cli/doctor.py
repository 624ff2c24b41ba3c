"""``patina doctor``: is everything as it should be, and what can be put right?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.mending import MENDABLE, mending
from trainer.printable import printable


def doctor(
    home: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Studio folder; without it the user's own.", show_default=False),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be put right.")] = False,
    clean_up: Annotated[
        bool, typer.Option("--clean-up", help="Remove what can be made again: downloads, caches of finished runs.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a zip archive to send along when you report a bug, without secrets and names.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say everything as JSON.")] = False,
) -> None:
    """Look at the installation, the device and the studio folder; exits with 2 while something is wrong."""
    with mending(as_json=as_json):
        from contextlib import ExitStack

        from trainer.studio import report as reports
        from trainer.studio.folder import StudioFolder, opened, studio_path
        from trainer.studio.health import Health, list_of

        folder = StudioFolder((home or studio_path()).absolute())
        done: list[str] = []
        with ExitStack() as held:
            if repair or clean_up:
                folder.prepare()
                held.enter_context(opened(folder))
            database, damaged = list_of(folder, mend=repair)
            if database is not None:
                held.callback(database.close)
            health = Health(folder, database)
            found = [*damaged, *(health.examine() if folder.path.is_dir() else ())]
            if repair:
                done += health.repair(found)
                found = health.examine()
            if clean_up:
                done.append(f"{health.clean_up() / 2**20:.0f} MB came free.")
            space = health.space() if folder.path.is_dir() else None
        facts = {**reports.facts(folder, found, space), "done": done}
        if report is not None:
            reports.write_report(folder, facts, report)
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            for line in _said(facts):
                typer.echo(printable(line))
            if report is not None:
                typer.echo(f"The report is {report}; look into it before you send it.")
        if facts["installation"] or facts["studio"]:
            raise typer.Exit(MENDABLE)


def _said(facts: dict[str, object]) -> list[str]:
    """What was found, a line each."""
    versions, space = facts["versions"], facts["space_bytes"]
    assert isinstance(versions, dict)
    installation, studio, done = (facts[name] for name in ("installation", "studio", "done"))
    assert isinstance(installation, list)
    assert isinstance(studio, list)
    assert isinstance(done, list)
    lines = [
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"Device: {facts['device']}",
        f"Studio folder: {facts['folder']}",
    ]
    if isinstance(space, dict):
        named = ("runs", "caches", "pictures", "styles", "trash", "downloads", "logs")
        lines.append("On the disk: " + ", ".join(f"{name} {space[name] / 2**20:.0f} MB" for name in named))
        lines.append(f"Free: {space['free'] / 2**30:.1f} GB")
    lines += [f"Done: {each}" for each in done]
    lines += [f"Wrong: {each}" for each in installation]
    for each in studio:
        lines.append(f"Wrong: {each['what']}" + (" (patina doctor --repair puts it right)" if each["repair"] else ""))
    if not installation and not studio:
        lines.append("All is well.")
    return lines

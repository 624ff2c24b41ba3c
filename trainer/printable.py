"""Text from anywhere, as a line that a terminal or a table can show without being told what to do."""

from __future__ import annotations


def printable(text: str, most: int = 1000) -> str:
    """The text on one line, with control characters and broken ones spelled out and a long one cut.

    Args:
        most: characters that are kept.
    """
    line = text if text.isprintable() else "".join(map(_spelled, text))
    return line if len(line) <= most else line[: most - 3] + "..."


def cpu_name(cores: int) -> str:
    """What a processor with so many cores to work with is called."""
    return "CPU, 1 core" if cores == 1 else f"CPU, {cores} cores"


def _spelled(character: str) -> str:
    if character in "\n\t":
        return " "
    return character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")

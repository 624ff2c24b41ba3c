"""The library's sentences in other languages: none is missing, and each is found by what it says."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer import errors
from trainer.languages import said, table, terminal_language

PACKAGE = Path(errors.__file__).parent
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)}
CHINESE = table("zh")


def templates(node: ast.expr) -> list[str]:
    """What a text may be, with a gap for whatever is filled in; all choices that stand in the source."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value.replace("{", "{{").replace("}", "}}")]
    if isinstance(node, ast.IfExp):
        return templates(node.body) + templates(node.orelse)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [a + b for a in templates(node.left) for b in templates(node.right)]
    if isinstance(node, ast.JoinedStr):
        whole = [""]
        for part in node.values:
            choices = ["{}"]
            if isinstance(part, ast.Constant):
                choices = templates(part)
            elif isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.IfExp):
                found = templates(part.value)
                choices = found if "{}" not in found else ["{}"]
            whole = [a + b for a in whole for b in choices]
        return whole
    return ["{}"]


def sentences() -> Iterator[tuple[str, str]]:
    """(where it stands, template) of every error, finding and trouble that is written out in library and app."""
    for path in sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "app").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            texts: list[ast.expr] = []
            if name in ERRORS:
                texts = node.args[:1]
            elif name == "Trouble":
                texts = node.args[:2]
            elif name == "Finding":
                texts = [*node.args[3:5], *(k.value for k in node.keywords if k.arg in ("message", "action"))]
            for text in texts:
                for template in templates(text):
                    if re.search(r"[a-z]", template):
                        yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno}", template


def numbered(template: str) -> str:
    count = iter(range(100))
    return re.sub(r"(?<!\{)\{\}(?!\})", lambda _: f"{{{next(count)}}}", template)


def test_every_error_and_finding_has_its_chinese_sentence() -> None:
    missing = {where: text for where, text in sentences() if numbered(text) not in CHINESE}
    assert not missing, "add them to trainer/languages/zh.toml"


def test_a_translation_fills_in_nothing_that_the_english_does_not() -> None:
    def gaps(text: str) -> set[str | None]:
        return {gap for _, gap, _, _ in string.Formatter().parse(text) if gap is not None}

    assert not [english for english, chinese in CHINESE.items() if not gaps(chinese) <= gaps(english)]
    assert not [english for english, chinese in CHINESE.items() if not re.search("[\u4e00-\u9fff]", chinese)]


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("cat.png is no file.", "cat.png 不是文件。"),
        ("optim.learning_rate is -1, but should be above 0.", "optim.learning_rate 是 -1，但应大于 0。"),
        ("2 of 4 images have no caption", "4 张图片中有 2 张没有标注"),
        (
            "Other programs know no base of this kind; to use the style in A1111, ComfyUI and the like, train on "
            "Stable Diffusion 1, 2 or XL.",
            "其他程序不认识这类底模；要在 A1111、ComfyUI 等中使用这个风格，请在 Stable Diffusion 1、2 或 XL 上训练。",
        ),
        ("ComfyUI opens it, but DoRA's lengths are left out.", "ComfyUI 能打开它，但略去 DoRA 的长度。"),
        (
            "It was empty and is removed. It lay in the wrong folder and was put back.",
            "它是空的，已删除。它放错了文件夹，已放回。",
        ),
        (
            "Step 100 at strength 0.25: 6% of the way from the base to your images, and subjects survive. 9 others "
            "cannot be told from it by these pictures; the earlier and weaker one keeps more of the base. Step 100 at "
            "1.25 begins to copy cat.png.",
            "第 100 步，强度 0.25：从底模走到你的图片的 6%，主体保留完好。"
            "另有 9 个从这些图片看不出差别；较早、较弱的保留更多底模。"
            "第 100 步（强度 1.25）开始照抄cat.png。",
        ),
        ("Nobody has heard of this sentence.", "Nobody has heard of this sentence."),
        ("", ""),
    ],
)
def test_a_sentence_is_said_with_what_was_filled_in(english: str, chinese: str) -> None:
    assert said(english, "zh") == chinese
    assert said(english, "en") == said(english, "xx") == english


def test_the_terminal_speaks_the_language_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATINA_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert terminal_language() == "en"
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert terminal_language() == "zh"
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert terminal_language() == "en"
    monkeypatch.setenv("PATINA_LANGUAGE", "zh")
    assert terminal_language() == "zh"


def helps(command: Any, context: Any) -> Iterator[tuple[str, str]]:
    """(whose it is, help text) of everything that a command's page tells."""
    for holder in (command, *command.get_params(context)):
        for text in (getattr(holder, "help", None), getattr(holder, "epilog", None)):
            if text and not getattr(holder, "hidden", False):
                yield f"{command.name} {holder.name}", text


def test_every_help_text_of_the_command_line_is_there_in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    import click
    import typer

    from app.__main__ import parser
    from trainer import cli
    from trainer.cli.told import told

    top = typer.main.get_command(cli.app)
    context = click.Context(top)
    found = [*helps(top, context), *cli.COMMANDS.items()]
    for name in cli.COMMANDS:
        command = top.get_command(context, name)  # type: ignore[attr-defined]
        found += helps(command, click.Context(command, parent=context))
    found += [(f"studio {action.dest}", action.help) for action in parser()._actions if action.help]
    missing = {}
    for where, text in found:
        # Sentences that stay as they are begin with a letter and end in a full stop.
        if left := re.findall(r"(?:^|[\u4e00-\u9fff。，]\s?)([A-Z][a-z]*\b[^\u4e00-\u9fff]*[a-z]\.)", told(text, "zh")):
            missing[where] = left
        elif not re.search("[\u4e00-\u9fff]", told(text, "zh")):
            missing[where] = [text]
    assert not missing, "add them to trainer/languages/zh.toml"


def test_a_help_page_in_chinese_keeps_to_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    import unicodedata

    from typer.testing import CliRunner

    from app.__main__ import parser
    from trainer.cli import app

    monkeypatch.setenv("PATINA_LANGUAGE", "zh")
    monkeypatch.setenv("COLUMNS", "80")
    runner = CliRunner()
    pages = [runner.invoke(app, [*command, "--help"]).output for command in ((), ("train",), ("doctor",))]
    for page in (*pages, parser().format_help()):
        assert page.startswith("用法：")
        assert not re.search("[\u2060\u2063]", page)
        for line in page.splitlines():
            columns = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)
            assert columns <= 80 or "|" in line, line
            assert not re.match(r"\s*[，。；：、？！）]", line), line
    assert "多数风格用 4 到 16" in pages[1]

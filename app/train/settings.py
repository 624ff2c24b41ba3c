"""The settings' form, made from the tree of settings: one field for each leaf, with its help and its limits.

Nothing about a setting is written here; a new field of `trainer.config` appears by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from markupsafe import Markup

from app.html import el, join
from app.texts import TEXTS
from app.texts.settings import ELSEWHERE
from app.train.dials import at
from trainer.config import Setting, settings

Kind = Literal["choice", "answer", "switch", "whole", "number", "text", "lines"]
ANSWERS = {"yes": True, "no": False}
_NOTHING: Mapping[str, Markup | None] = {}
_ALL: Mapping[str, Collection[str]] = {}


class Field:
    """A leaf of the tree of settings as a form shows it.

    Attributes:
        path: dotted, ``optim.learning_rate``.
        kind: how it is asked for.
        optional: whether it may be left empty, which leaves it to the preset.
        choices: of a ``choice``, or the two of an ``answer``.
        least, most: allowed range, both ends included unless the description says otherwise; None is open.
    """

    def __init__(self, setting: Setting) -> None:
        self.path, self.section = setting.path, setting.section
        self.optional, self.default = setting.optional, setting.default
        self.least, self.most = setting.least, setting.most
        # A switch has no third position for "chosen for you".
        is_answer = setting.kind == "switch" and setting.optional
        self.kind: Kind = "answer" if is_answer else setting.kind
        self.choices = tuple(ANSWERS) if is_answer else setting.choices
        self._holds_numbers = self.kind == "lines" and any(isinstance(item, float) for item in setting.default or ())

    @property
    def label(self) -> str:
        """What it is called."""
        return TEXTS.train.settings[self.path][0]

    @property
    def help(self) -> str:
        """One sentence on what you will see change."""
        return TEXTS.train.settings[self.path][1]

    def read(self, value: object) -> Any:
        """What a form field holds as a value for `Studio.update_draft`; what is no number is left to its checks."""
        if self.kind == "switch":
            return bool(value)
        entered = str(value).strip() if value is not None else ""
        if self.kind == "answer":
            return ANSWERS.get(entered)
        if self.kind == "lines":
            lines = [line.strip() for line in entered.splitlines() if line.strip()]
            return [_number(line) for line in lines] if self._holds_numbers else lines
        if not entered:
            return None
        if self.kind in ("whole", "number"):
            number = _number(entered)
            return int(number) if self.kind == "whole" and isinstance(number, float) and number.is_integer() else number
        return entered


def form_fields() -> Iterator[Field]:
    """The settings under *Advanced*, in the order of the tree."""
    for setting in settings().values():
        if setting.path not in ELSEWHERE:
            yield Field(setting)


def advanced(
    chosen: Mapping[str, Any],
    choices: Mapping[str, Any],
    below: Mapping[str, Markup | None] = _NOTHING,
    offered: Mapping[str, Collection[str]] = _ALL,
    idle: Collection[str] = (),
) -> Markup:
    """All of *Advanced*.

    Args:
        chosen: what the draft sets, nested; absent is left to the preset.
        choices: dotted setting -> what will be used for what is left to the preset.
        below: dotted setting -> what stands below its field.
        offered: dotted setting -> those of its choices that suit the base; of the others all are offered.
        idle: dotted settings that mean nothing to the base or on this machine; shown only where something was chosen.
    """
    groups: dict[str, list[Markup]] = {}
    for field in form_fields():
        if field.path in idle and at(chosen, field.path) in (None, field.default):
            continue
        if field.path in offered:
            field.choices = tuple(each for each in field.choices if each in offered[field.path])
        row = _row(field, at(chosen, field.path), choices.get(field.path), below.get(field.path))
        groups.setdefault(field.section, []).append(row)
    names = TEXTS.train.section_names
    return join(
        el("fieldset", el("legend", names.get(section, section.capitalize())), rows, class_="settings")
        for section, rows in groups.items()
    )


def _row(field: Field, value: Any, choice: Any, below: Markup | None) -> Markup:
    name = "set-" + field.path.replace(".", "-")
    control = _control(field, name, value, choice)
    described = f"{name}-help"
    limits = _limits(field)
    return el(
        "div",
        el("label", field.label, for_=name),
        control,
        el("p", field.help, f" {limits}" if limits else None, id=described, class_="help"),
        below,
        class_=f"setting {field.kind}",
    )


def _control(field: Field, name: str, value: Any, choice: Any) -> Markup:
    shared: dict[str, Any] = {"id": name, "data_set": field.path, "aria_describedby": f"{name}-help"}
    current = value if value is not None else field.default
    if field.kind == "answer" and current is not None:
        current = next(word for word, meant in ANSWERS.items() if meant == current)
    if field.kind in ("choice", "answer"):
        free = el("option", TEXTS.train.left_empty, value="", selected=current is None) if field.optional else None
        # What was chosen for another base stays in sight until something else is.
        left = (str(current),) if current is not None and current not in field.choices else ()
        return el("select", free, [_option(option, current) for option in (*field.choices, *left)], **shared)
    if field.kind == "switch":
        return el("input", type="checkbox", checked=bool(current), **shared)
    if field.kind == "lines":
        return el("textarea", "\n".join(_plain(item) for item in current or ()), rows=3, **shared)
    # Text, not type=number: that hides what it cannot parse, and a wheel over the page would change it.
    hint = TEXTS.train.chosen_for_you.format(value=_plain(choice)) if choice is not None and field.optional else ""
    mode = {"whole": "numeric", "number": "decimal"}.get(field.kind)
    return el(
        "input",
        type="text",
        inputmode=mode,
        value="" if current is None else _plain(current),
        placeholder=hint or (TEXTS.train.left_empty if field.optional else None),
        autocomplete="off",
        spellcheck="false",
        **shared,
    )


def _option(option: str, current: Any) -> Markup:
    return el("option", TEXTS.train.answers.get(option, option), value=option, selected=option == current)


def _number(entered: str) -> float | str:
    """A number as people write it, or what was entered where it is none."""
    try:
        return float(entered.replace(",", "."))
    except ValueError:
        return entered


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def _limits(field: Field) -> str:
    if field.kind not in ("whole", "number"):
        return ""
    words = TEXTS.train
    if field.least is not None and field.most is not None:
        return words.range.format(least=_plain(field.least), most=_plain(field.most))
    if field.least is not None:
        return words.at_least.format(least=_plain(field.least))
    return ""

"""The right side of a draft: name, trigger, the three effect-first controls, plan and button. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping

from markupsafe import Markup

from app.html import el
from app.subjects import known
from app.texts import TEXTS, said
from app.train.dials import DIALS, POSITIONS, Dial, at
from app.train.settings import advanced as advanced_fields
from app.units import duration, of_total, size
from trainer.bases.describe import BaseInfo
from trainer.bases.families import FAMILIES
from trainer.config.schedulers import able
from trainer.studio.views import DraftView, PlanView


def setup(draft: DraftView, plan: PlanView, preset: Mapping[str, float], *, busy: bool) -> Markup:
    """The panel.

    Args:
        preset: dotted setting -> what the preset would choose, for the dials.
        busy: this run will wait for another that is in training.
    """
    words = TEXTS.train
    chosen = str(at(draft.settings, "train.preset") or "balanced")
    return el(
        "section",
        _line("name", words.name, draft.name, words.name_help),
        _line("trigger", words.trigger, str(draft.settings.get("trigger") or ""), words.trigger_help),
        el(
            "fieldset",
            el("legend", words.preset),
            el(
                "div",
                [
                    el(
                        "label",
                        el(
                            "input",
                            type="radio",
                            name="preset",
                            value=value,
                            checked=chosen == value,
                            data_set="train.preset",
                        ),
                        el("span", label),
                    )
                    for value, label in words.presets.items()
                ],
                class_="segments",
            ),
        ),
        [_dial(dial, draft, preset) for dial in DIALS],
        _finding(draft) if at(draft.settings, "optim.learning_rate") is None else None,
        el("button", words.to_advanced, type="button", class_="link", data_open="advanced"),
        el("div", [el("p", said(note), class_="help") for note in plan.notes], class_="notes") if plan.notes else None,
        el(
            "div",
            _plan(plan),
            el(
                "button",
                words.queue_it if busy else words.train,
                type="button",
                class_="primary",
                data_act="train",
                data_tell=words.starting,
                data_main=True,
                disabled=bool(plan.problem),
            ),
            el("p", class_="busy", data_busy=True, role="status"),
            class_="foot",
        ),
        class_="setup",
        aria_label=words.setup,
    )


def advanced(draft: DraftView, plan: PlanView, base: BaseInfo | None = None) -> Markup:
    """Every setting, folded.

    Args:
        base: what is known of the draft's base.
    """
    words = TEXTS.train
    base = base or BaseInfo("")
    below = {"samples.prompts": known(base.subjects, words.subjects_help, keep="sample-subjects")}
    rescaled = at(draft.settings, "base.zero_terminal_snr")
    schedulers = able(zero_terminal_snr=base.zero_snr if rescaled is None else bool(rescaled))
    offered = {"samples.scheduler": schedulers}
    family = FAMILIES.get(base.family or "")
    idle = [
        *(["base.clip_skip"] if family is not None and not family.clip_skip else []),
        *(["train.gpus"] if plan.cards == 1 else []),
    ]
    return el(
        "details",
        el("summary", words.advanced),
        el("p", words.advanced_hint, class_="help"),
        advanced_fields(draft.settings, plan.choices, below, offered, idle),
        el("button", words.reset_all, type="button", class_="small", data_act="reset-settings"),
        class_="advanced",
        data_keep="advanced",
    )


def _line(setting: str, label: str, value: str, help_text: str) -> Markup:
    return el(
        "div",
        el("label", label, for_=f"setup-{setting}"),
        el(
            "input",
            id=f"setup-{setting}",
            type="text",
            value=value,
            maxlength=200,
            data_set=setting,
            aria_describedby=f"setup-{setting}-help",
            autocomplete="off",
        ),
        el("p", help_text, id=f"setup-{setting}-help", class_="help"),
        class_="field",
    )


def _finding(draft: DraftView) -> Markup:
    """Whether rates race first; a rate that was chosen leaves nothing to find."""
    words = TEXTS.train
    box = el(
        "input",
        type="checkbox",
        checked=bool(at(draft.settings, "optim.find_rate")),
        data_set="optim.find_rate",
        aria_describedby="setup-find-rate-help",
    )
    return el(
        "div",
        el("label", box, " ", words.find_rate, class_="switch"),
        el("p", words.find_rate_help, id="setup-find-rate-help", class_="help"),
        class_="field",
    )


def _dial(dial: Dial, draft: DraftView, preset: Mapping[str, float]) -> Markup:
    words = TEXTS.train
    label, low, high, help_text = words.dials[dial.name]
    base = preset[dial.setting]
    value = at(draft.settings, dial.setting)
    position = dial.position(base, value)
    says = [_says(dial, base if p == 0 else dial.value(base, p)) for p in POSITIONS]
    now = _says(dial, base if value is None else value)
    name = f"dial-{dial.name}"
    return el(
        "div",
        el("div", el("label", label, for_=name), el("output", now, for_=name), class_="top"),
        el(
            "input",
            id=name,
            type="range",
            min=POSITIONS.start,
            max=POSITIONS.stop - 1,
            step=1,
            value=position,
            data_set=f"dial.{dial.name}",
            data_says=json.dumps(says),
            aria_valuetext=now,
            aria_describedby=f"{name}-help",
        ),
        el("div", el("span", low), el("span", high), class_="ends", aria_hidden="true"),
        el("p", help_text, id=f"{name}-help", class_="help"),
        class_="dial",
    )


def _says(dial: Dial, value: float | None) -> str:
    shown = f"{value:.3g}" if isinstance(value, float) and not dial.whole else f"{round(value or 0)}"
    return TEXTS.train.dial_says[dial.name].format(value=shown)


def _plan(plan: PlanView) -> Markup:
    words = TEXTS.train
    if plan.problem:
        return el("p", said(plan.problem) if plan.images else words.plan_none, class_="plan", role="status")
    parts = [words.plan_steps.format(steps=plan.steps)]
    if plan.seconds is not None:
        parts.append(words.plan_time.format(time=duration(plan.seconds)))
    if plan.memory_bytes is not None:
        parts.append(words.plan_memory.format(memory=of_total(plan.memory_bytes, plan.memory_available_bytes)))
    if plan.file_bytes is not None:
        parts.append(words.plan_file.format(size=size(plan.file_bytes)))
    source = words.plan_measured if plan.source == "measured" else words.plan_estimated
    tight = plan.memory_bytes is not None and plan.memory_bytes > plan.memory_available_bytes
    return el(
        "div",
        el("p", TEXTS.frame.comma.join(parts), class_="problem" if tight else None),
        el("p", source, class_="help"),
        class_="plan",
        role="status",
    )

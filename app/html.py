"""HTML from Python values, with everything escaped that is not markup already.

``el("p", name, class_="empty")`` escapes ``name``. Text is turned into `Markup` only by functions of this module,
so a name or caption of a user cannot become an element or leave its attribute.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

Child = str | int | float | None | Iterable["Child"]
Attribute = str | int | float | bool | None

_VOID = frozenset({"br", "img", "input", "hr", "circle", "line", "path", "polyline", "rect"})


def el(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """An element.

    Args:
        name: of the element, always a constant.
        children: text (escaped), `Markup` (as it is), nested iterables of both, or None (nothing).
        attributes: ``class_`` and ``for_`` lose their underscore, others become dashes; True stands alone, None and
            False are left out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(f" {attribute}" if value is True else f' {attribute}="{escape(str(value))}"')
    if name in _VOID:
        # In SVG an element that is not closed swallows those after it; in HTML the slash is passed over.
        parts.append(" />")
    else:
        parts.append(">")
        parts.append(join(children))
        parts.append(f"</{name}>")
    return Markup("".join(parts))


def join(children: Iterable[Child]) -> Markup:
    """Children one after another."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, (str, int, float)):
            parts.append(str(escape(child)))
        else:
            parts.append(join(child))
    return Markup("".join(parts))


def text(value: object) -> str:
    """``value`` as text that is safe inside an element and inside a quoted attribute, for a string of markup."""
    return str(escape(str(value)))

"""What becomes of a style file in each program: opened, opened in part, or not, and how to mend it.

The rules of `trainer.styles.consumers.programs` applied to a file, or to one that a training would write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.bases.families import Family
from trainer.styles.consumers.programs import (
    KNOWN,
    LEFT_OUT,
    PROGRAMS,
    Program,
    is_inside,
    normal,
    original_stem,
    web_ui_family,
)
from trainer.styles.consumers.tensors import DOWN, UP, FileTensors, shape_of
from trainer.styles.names import diffusers_stem, kohya_stem

Layout = Literal["kohya", "diffusers"]
State = Literal["whole", "part", "not", "otherwise", "wrong"]

_KOHYA_LAYOUT = "choose kohya's layout"
_UNKNOWN_BASE = "it knows no base of this kind"
_KNOWN_BASE = "train on Stable Diffusion 1, 2 or XL"
_NARROWER = "leave them out of adapter.targets"
_CROSS = "add attn2.to_k or attn2.to_v to adapter.targets, as 'attention' does"


@dataclass(frozen=True)
class Opening:
    """What one program does with a file.

    Attributes:
        program: its name.
        state: ``whole``; ``part``: it takes some layers; ``not``: none; ``otherwise``: all, but not all that belongs to
            them; ``wrong``: it would compute another update than ours from the same matrices.
        taken: path of each layer that it takes -> the layer's name in the file.
        left_out: paths of the layers that it does not take, in the file's order.
        why: what is so, as a part of a sentence; empty when all is well.
        way_out: what to do, likewise; empty where there is nothing.
    """

    program: str
    state: State
    taken: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    why: str = ""
    way_out: str = ""

    @property
    def layers(self) -> int:
        """How many layers the file has."""
        return len(self.taken) + len(self.left_out)


def openings(tensors: FileTensors, paths: Iterable[str], family: Family) -> tuple[Opening, ...]:
    """What each program does with a file.

    Args:
        paths: root-qualified path of every layer that is in the file.
        family: of the base that it is for.
    """
    order = tuple(paths)
    return tuple(_opening(program, tensors, order, family) for program in PROGRAMS)


def foreseen(
    layers: Mapping[str, tuple[int, ...]], family: Family, layout: Layout, *, dora: bool = False
) -> tuple[Opening, ...]:
    """What each program would do with the file that a training of these layers writes.

    Args:
        layers: root-qualified path of each layer that is to learn -> the shape of its weight.
        dora: whether the method has lengths of rows.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path, shape in layers.items():
        if layout == "diffusers":
            stem, down, up, length = diffusers_stem(path), DOWN[1], UP[1], "lora_magnitude_vector"
        else:
            stem = (family.original_names and original_stem(path, family)) or kohya_stem(path)
            down, up, length = DOWN[0], UP[0], "dora_scale"
        ones = (1,) * (len(shape) - 2)
        shapes[f"{stem}.{down}"] = (1, *shape[1:])
        shapes[f"{stem}.{up}"] = (shape[0], 1, *ones)
        if dora:
            shapes[f"{stem}.{length}"] = (shape[0], 1, *ones)
    return openings(FileTensors.of(shapes), layers, family)


def opens_in(found: Sequence[Opening]) -> str:
    """One line for people: the programs that take the file whole."""
    whole = [each.program for each in found if each.state == "whole"]
    return f"Opens in {_listed(whole)}." if len(whole) > 1 else f"Opens in {_listed([*whole, 'Patina'])} only."


def told(found: Sequence[Opening]) -> tuple[str, ...]:
    """All of it for people: where the file opens, then `losses`; () where nothing is known."""
    return (opens_in(found), *losses(found)) if found else ()


def losses(found: Sequence[Opening]) -> tuple[str, ...]:
    """A sentence for each thing that is lost, with the programs that lose it and the way out."""
    groups: dict[tuple[State, tuple[str, ...], str, str], list[Opening]] = {}
    for each in found:
        if each.why:
            groups.setdefault((each.state, each.left_out, each.why, each.way_out), []).append(each)
    return tuple(_sentence(group) for group in groups.values())


def _sentence(group: Sequence[Opening]) -> str:
    one, programs = group[0], _listed([each.program for each in group])
    several = len(group) > 1
    if one.why == _UNKNOWN_BASE:
        # All of them but those that open any base.
        return (
            f"Other programs know no base of this kind; to use the style in A1111, ComfyUI and the like, {one.way_out}."
        )
    match one.state:
        case "not":
            said = f"{programs} {'do' if several else 'does'} not open it: {one.why}"
        case "part":
            examples = ", ".join(path.partition(".")[2] for path in one.left_out[:3])
            more = " and more" if len(one.left_out) > 3 else ""
            leave = "leave" if several else "leaves"
            said = f"{programs} {leave} out {len(one.left_out)} of {one.layers} layers ({examples}{more}): {one.why}"
        case _:
            said = f"{programs} {'open' if several else 'opens'} it, but {one.why}"
    return f"{said}; {one.way_out}." if one.way_out else f"{said}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _opening(program: Program, tensors: FileTensors, order: Sequence[str], family: Family) -> Opening:
    nothing: dict[str, str] = {}
    if program.families is not None and family.key not in program.families:
        return Opening(program.title, "not", nothing, tuple(order), _UNKNOWN_BASE, _KNOWN_BASE)
    kohya = tensors.named("lora_")
    if reason := program.refuses(tensors, family):
        return Opening(program.title, "not", nothing, tuple(order), reason, _CROSS if kohya else _KOHYA_LAYOUT)
    paths = normal(order)
    places = {name: path for path in paths for name in program.names(path, family)}
    taken: dict[str, str] = {}
    homeless = 0
    for stem, parts in tensors.parts.items():
        place = places.get(stem)
        if place is None or place in taken or not _fits(program, place, parts, family):
            homeless += len(parts)
        else:
            taken[place] = stem
    taken = {path: stem for path, stem in taken.items() if all(one in taken for one in program.together(path, family))}
    ours = {paths[path]: stem for path, stem in taken.items()}
    left_out = tuple(path for path in order if path not in ours)
    if left_out:
        way_out = _way_out(program, left_out, family, kohya=kohya)
        too_many = program.unmatched is not None and homeless > program.unmatched
        if not ours or too_many or program.whole:
            why = f"there is no place for {len(left_out)} of {len(order)} layers"
            return Opening(program.title, "not", nothing, tuple(order), why, way_out)
        return Opening(program.title, "part", ours, left_out, "they have no place there", way_out)
    if lengths := tensors.lengths:
        read = program.columns if lengths == "columns" else program.reads_header and not kohya
        why = "" if read else LEFT_OUT if lengths == "columns" else program.lengths
        return Opening(program.title, "whole" if read else "otherwise", ours, (), why, "")
    listed = web_ui_family(tensors.metadata) if program.title == "A1111" else None
    why = f"it is listed among the styles of {listed.title}" if listed and listed.key != family.key else ""
    return Opening(program.title, "otherwise" if why else "whole", ours, (), why)


def _fits(program: Program, path: str, parts: Mapping[str, tuple[int, ...]], family: Family) -> bool:
    """Whether a layer's matrices have shapes that the program can put on the layer of the family's released members.

    A program that opens any base puts them on the very base that they were made for.
    """
    down, up = shape_of(parts, DOWN), shape_of(parts, UP)
    if down is None or up is None:
        return False
    if program.families is None:
        return True
    width = family.text_width
    if width is not None and path.endswith((".attn2.to_k", ".attn2.to_v")) and down[1] != width:
        return False
    linear = getattr(family, "linear_projection", None)
    if program.exact_shapes and linear is not None and path.endswith((".proj_in", ".proj_out")):
        return (len(down) == 2) == bool(linear)
    return True


def _way_out(program: Program, left_out: Sequence[str], family: Family, *, kohya: bool) -> str:
    if not kohya:
        return _KOHYA_LAYOUT
    if family.key in KNOWN and all(path.startswith("unet.") and not is_inside(path) for path in left_out):
        return _NARROWER
    return ""

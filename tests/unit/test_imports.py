"""The direction of imports, read from the source: no layer knows of one above it, and light modules stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# From the ground up. A module may import its own layer and those below; the longest name that
# matches decides.
LAYERS = {
    "trainer.errors": 0,
    "trainer.languages": 0,
    "trainer.printable": 0,
    "trainer.version": 0,
    "trainer.atomic": 1,
    "trainer.child": 1,
    "trainer.config": 1,
    "trainer.events": 1,
    "trainer.findings": 1,
    "trainer.hardware": 1,
    "trainer.presets": 3,
    "trainer.signs": 2,
    "trainer.noise": 1,
    "trainer.optimizers": 1,
    "trainer.randomness": 1,
    "trainer.safetensors_file": 1,
    "trainer.sandbox": 1,
    "trainer.adapters": 1,
    "trainer.bases": 2,
    "trainer.data": 2,
    "trainer.styles": 2,
    "trainer.captioning": 3,
    "trainer.preview": 3,
    "trainer.judging": 3,
    "trainer.publishing": 3,
    "trainer.training": 3,
    "trainer.workbench": 3,
    "trainer.study": 4,
    "trainer.public": 4,
    "trainer.studio": 4,
    "trainer.cli": 5,
    "trainer.__main__": 5,
    "trainer": 5,  # the package itself, which names what it offers and which nothing inside may import
    "app": 6,
}
HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "gradio", "numpy", "PIL")


@dataclass(frozen=True)
class Import:
    """One imported module: where it is written, and whether merely importing the file runs it."""

    module: str
    line: int
    at_top: bool


def source_files() -> dict[str, Path]:
    """Every module of the two packages, by dotted name."""
    modules = {}
    for package in ("trainer", "app"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


MODULES = source_files()


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_below(node: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_top)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            assert child.level == 0, f"line {child.lineno}: a relative import"
            submodules = [name for alias in child.names if (name := f"{base}.{alias.name}") in MODULES]
            yield from (Import(name, child.lineno, at_top) for name in submodules)
            if len(submodules) < len(child.names):
                yield Import(base, child.lineno, at_top)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_below(child, at_top=False)
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            for statement in child.body:
                yield from imports_below(ast.Module([statement], []), at_top=False)
            for statement in child.orelse:
                yield from imports_below(ast.Module([statement], []), at_top=at_top)
        else:
            yield from imports_below(child, at_top=at_top)


IMPORTS = {name: list(imports_below(ast.parse(path.read_text("utf-8")), at_top=True)) for name, path in MODULES.items()}


def is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer_of(module: str) -> int | None:
    """The module's layer; None where it belongs to no layer."""
    matches = [name for name in LAYERS if is_inside(module, name) and (name != "trainer" or module == "trainer")]
    return LAYERS[max(matches, key=len)] if matches else None


def ours(module: str) -> bool:
    return is_inside(module, "trainer") or is_inside(module, "app")


def test_every_module_belongs_to_a_layer() -> None:
    assert [name for name in MODULES if layer_of(name) is None] == []


def test_no_module_imports_from_a_layer_above_its_own() -> None:
    wrong = []
    for name, imports in IMPORTS.items():
        for each in imports:
            if ours(each.module):
                own, other = layer_of(name), layer_of(each.module)
                assert own is not None, name
                assert other is not None, each.module
                if other > own:
                    wrong.append(f"{name}:{each.line} imports {each.module}")
    assert wrong == []


def test_the_library_knows_neither_the_app_nor_gradio() -> None:
    wrong = [
        f"{name}:{each.line}"
        for name, imports in IMPORTS.items()
        if is_inside(name, "trainer")
        for each in imports
        if is_inside(each.module, "app") or is_inside(each.module, "gradio")
    ]
    assert wrong == []


def test_nothing_inside_imports_the_package_itself() -> None:
    assert [
        name for name, imports in IMPORTS.items() if is_inside(name, "trainer") and "trainer" in targets(imports)
    ] == []


def targets(imports: list[Import]) -> set[str]:
    return {each.module for each in imports}


def test_modules_do_not_know_each_other_in_a_circle() -> None:
    """Imports inside functions and for types alone count: a circle is a circle whenever it is walked."""
    edges = {name: sorted(targets(imports) & MODULES.keys() - {name}) for name, imports in IMPORTS.items()}
    done: set[str] = set()
    circles = []

    def walk(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            circles.append(frozenset(trail[trail.index(name) :]))
        elif name not in done:
            for other in edges[name]:
                walk(other, (*trail, name))
            done.add(name)

    for name in edges:
        walk(name, ())
    assert [" <-> ".join(sorted(circle)) for circle in circles] == []


def test_model_libraries_are_imported_only_where_they_are_used() -> None:
    wrong = [
        f"{name}:{each.line} imports {each.module}"
        for name, imports in IMPORTS.items()
        for each in imports
        if each.at_top and any(is_inside(each.module, heavy) for heavy in ("diffusers", "transformers", "peft"))
    ]
    assert wrong == []


def test_the_app_leaves_torch_to_the_worker() -> None:
    wrong = [
        f"{name}:{each.line} imports {each.module}"
        for name, imports in IMPORTS.items()
        if is_inside(name, "app")
        for each in imports
        if any(is_inside(each.module, heavy) for heavy in ("torch", "diffusers", "transformers", "peft"))
    ]
    assert wrong == []


def loaded_by(module: str) -> set[str]:
    """Which heavy libraries a fresh Python holds after importing a module."""
    code = f"import sys, {module}\nprint(*sorted(set(sys.modules) & set({HEAVY!r})))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "trainer",
        "trainer.cli",
        "trainer.config",
        "trainer.data.buckets",
        "trainer.data.captions",
        "trainer.errors",
        "trainer.events",
        "trainer.findings",
        "trainer.randomness",
        "app.__main__",
    ],
)
def test_a_light_module_loads_no_heavy_library(module: str) -> None:
    assert loaded_by(module) == set()


@pytest.mark.model
def test_the_whole_page_loads_without_torch() -> None:
    assert loaded_by("app.launch, app.page, trainer.studio.studio") & {"torch", "diffusers", "transformers"} == set()


def public_names(path: Path) -> list[str] | None:
    for node in ast.parse(path.read_text("utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                names: list[str] = ast.literal_eval(value)
                return names
    return None


def test_public_names_are_sorted_and_exist() -> None:
    import trainer

    assert public_names(MODULES["trainer"]) is not None
    for name, path in MODULES.items():
        names = public_names(path)
        assert names is None or names == sorted(names), name
    for name in trainer.__all__:
        assert getattr(trainer, name) is not None
    assert set(trainer.__all__) <= set(dir(trainer))


def test_no_module_is_a_grab_bag() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [name for name in MODULES if set(name.split(".")) & banned] == []

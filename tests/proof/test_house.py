"""The house stands: imports point down, lazy ones and those for type checkers too, and nothing in it is too large to read."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cleanup_guard

pytestmark = pytest.mark.one_python

PACKAGE = Path(cleanup_guard.__file__).parent
FLOORS = (
    {"_ground"},
    {"_stop"},
    {"_process"},
    {"_hosts", "_exec"},
    {"_guard"},
    {"_supervise"},
    {"_rehearse"},
    {"_cli"},
)
"""From the ground up. The files of the package itself, which are what users import, may import everything."""

MOST_ATTRIBUTES, MOST_METHODS, MOST_BRANCHES, MOST_LINES = 14, 25, 12, 650
USERS_WORDS = {"Guard"}
"""Classes whose methods are what the pages document, however many those are."""

BRANCHES = (
    ast.If,
    ast.For,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.comprehension,
    ast.AsyncFor,
    ast.Assert,
)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Each module of the package by its dotted name, with its tree."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = (PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(file.read_text())


SOURCES = dict(sources())


def imported(tree: ast.Module) -> set[str]:
    """The modules of ours that one imports, wherever and for whomever it does."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found & SOURCES.keys() - {PACKAGE.name}


IMPORTS = {name: imported(tree) - {name} for name, tree in SOURCES.items()}


def floor_of(module: str) -> int:
    """On which floor a module is."""
    room = module.split(".")[1] if "." in module else ""
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS))


def test_every_folder_has_a_floor() -> None:
    """A new one is put somewhere."""
    folders = {each.name for each in PACKAGE.iterdir() if (each / "__init__.py").exists()}
    assert folders == set().union(*FLOORS)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str) -> None:
    """To a floor below, or to the same folder."""
    own, room = floor_of(module), module.split(".")[:2]
    up = {each for each in IMPORTS[module] if floor_of(each) >= own and each.split(".")[:2] != room}
    assert own == len(FLOORS) or not up


def test_there_is_no_circle() -> None:
    """Within a folder, too."""
    try:
        graphlib.TopologicalSorter(IMPORTS).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


def test_the_pure_floor_is_pure() -> None:
    """What is decided is decided from facts and the time: no os, signal, threading, time; `token` asks the interpreter."""
    for name, tree in SOURCES.items():
        if floor_of(name) != 1:
            continue
        roots = {
            (alias.name if isinstance(node, ast.Import) else node.module or "").partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        allowed = (
            {"sys", "os"}
            if name.endswith(".token")
            else {"signal", "_signal"}
            if name.endswith(".owner")
            else set()
        )
        assert not roots & ({"os", "sys", "signal", "_signal", "threading", "time", "select"} - allowed), name


CLASSES = [
    (name, node)
    for name, tree in SOURCES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
]


def attributes(node: ast.ClassDef) -> set[str]:
    """What a class stores on itself."""
    return {
        target.attr
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute)
        and isinstance(target.ctx, ast.Store)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }


@pytest.mark.parametrize(
    ("module", "node"), CLASSES, ids=[f"{module}.{node.name}" for module, node in CLASSES]
)
def test_no_class_is_too_large(module: str, node: ast.ClassDef) -> None:
    """In attributes and in methods."""
    if node.name in USERS_WORDS:
        return
    methods = sum(isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) for each in node.body)
    assert len(attributes(node)) <= MOST_ATTRIBUTES
    assert methods <= MOST_METHODS


def branches(function: ast.AST) -> int:
    """How many ways lead through a function, roughly."""
    return 1 + sum(
        len(node.values) - 1 if isinstance(node, ast.BoolOp) else isinstance(node, BRANCHES)
        for node in ast.walk(function)
    )


@pytest.mark.parametrize("module", SOURCES)
def test_no_function_is_too_complex(module: str) -> None:
    """Those inside it count with it."""
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert branches(node) <= MOST_BRANCHES, node.name


FILES = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_too_long(name: str) -> None:
    """It is read in one go."""
    assert len(FILES[name].read_text().splitlines()) <= MOST_LINES


WORDS = {"manager", "utils", "helpers", "misc", "common"}


def test_names_say_what_things_are() -> None:
    """No file or class is named after nothing."""
    for name in [*SOURCES, *(f"{module}.{node.name}" for module, node in CLASSES)]:
        assert not WORDS & set(name.lower().replace("_", ".").split(".")), name

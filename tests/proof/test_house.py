"""The house rules, read from the source: imports only point down, nothing is too big, one word means one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import cleanup_guard
from cleanup_guard import Guard

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(cleanup_guard.__file__).parent
NAME = PACKAGE.name

FLOORS: list[tuple[str, ...]] = [
    ("_ground",),  # values and words that every part shares
    ("_stop",),  # what a stop is and what is due: pure
    ("_process",),  # one process: signals, threads, exits
    ("_hosts", "_exec"),  # where main runs; becoming another program
    ("_guard",),  # what users say
    ("_supervise",),
    ("_rehearse",),
    ("testing",),
    ("_cli", "_pytest_plugin"),
    ("",),  # the face, and `__main__`: they may import everything, and nobody imports them
]
"""From the ground up. Folders on one floor do not know each other."""

MOST_ATTRIBUTES = 14
MOST_METHODS = 25
MOST_COMPLEX = 12
MOST_LINES = 650

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """One file.

    Attributes:
        name: dotted, without the package's own.
        path: where it is.
        tree: what it says.
        imports: the modules of the package that it imports, lazily or for the type checker only, too.
    """

    name: str
    path: Path
    tree: ast.Module
    imports: set[str] = field(default_factory=set)

    @property
    def room(self) -> str:
        """The folder, or the file if it lies in none."""
        first = self.name.partition(".")[0]
        return "" if first in ("", "__main__") else first


def read() -> dict[str, Module]:
    """All files of the package, with what each imports."""
    modules = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path, ast.parse(path.read_text()))
    for module in modules.values():
        module.imports = {found for found in imported(module, set(modules)) if found != module.name}
    return modules


def imported(module: Module, known: set[str]) -> Iterator[str]:
    """What a file imports of the package: a module where there is one of that name, else the one with the name in it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from inside(alias.name, known)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            for alias in node.names:
                found = list(inside(f"{base}.{alias.name}", known))
                yield from found or inside(base, known)
        elif isinstance(node, ast.Call) and called(node) in ("__import__", "import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield from inside(argument.value, known)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """The dotted name after `from`."""
    if not node.level:
        return node.module or ""
    package = [NAME, *module.name.split(".")] if module.name else [NAME]
    if module.path.name != "__init__.py":
        package.pop()
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, *([node.module] if node.module else [])])


def inside(dotted: str, known: set[str]) -> Iterator[str]:
    """The module of the package that a dotted name means, if it means one."""
    first, _, rest = dotted.partition(".")
    if first == NAME and rest in known:
        yield rest


def called(node: ast.Call) -> str:
    """The last word of what is called."""
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


MODULES = read()


def floor(module: Module) -> int:
    """On which floor a file lies."""
    return next((number for number, rooms in enumerate(FLOORS) if module.room in rooms), -1)


def test_every_file_has_a_floor() -> None:
    """No room is without a place in the house."""
    assert not [name for name, module in MODULES.items() if floor(module) < 0]


def test_imports_only_point_down() -> None:
    """A file imports from floors below and from its own room: lazy imports and the type checker's, too. No exceptions."""
    up = [
        f"{name} imports {other or NAME}"
        for name, module in MODULES.items()
        for other in sorted(module.imports)
        if floor(MODULES[other]) > floor(module)
        or (floor(MODULES[other]) == floor(module) and MODULES[other].room != module.room)
    ]
    assert not up, "\n".join(up)


def test_nothing_is_imported_in_a_circle() -> None:
    """Inside a room files import one another in one direction only."""
    circles = [sorted(circle) for circle in knots({name: module.imports for name, module in MODULES.items()})]
    assert not circles, circles


def knots(edges: dict[str, set[str]]) -> Iterator[set[str]]:
    """The groups in which everybody reaches everybody."""
    reach = {start: reachable(start, edges) for start in edges}
    seen: set[str] = set()
    for start in edges:
        knot = {other for other in reach[start] if start in reach[other]}
        if knot and start not in seen:
            seen |= knot
            yield knot


def reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    """Where imports lead."""
    found: set[str] = set()
    rest = [start]
    while rest:
        for other in edges[rest.pop()] - found:
            found.add(other)
            rest.append(other)
    return found


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """All classes."""
    for module in MODULES.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                yield f"{module.name}.{node.name}", node


def attributes(node: ast.ClassDef) -> set[str]:
    """What a class stores on `self`."""
    return {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }


def test_no_class_has_too_many_attributes() -> None:
    """What one object knows fits in one head."""
    big = {name: len(attributes(node)) for name, node in classes()}
    assert not {name: number for name, number in big.items() if number > MOST_ATTRIBUTES}


def test_no_class_has_too_many_methods() -> None:
    """The same for what it can do; `Guard` has the words of ExitStack and AsyncExitStack, which their users know."""
    big = {name: sum(isinstance(each, Function) for each in node.body) for name, node in classes()}
    assert not {
        name: number
        for name, number in big.items()
        if number > MOST_METHODS and name.rpartition(".")[2] != Guard.__name__
    }


BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.comprehension,
    ast.Assert,
    ast.match_case,
)


def complexity(function: Function) -> int:
    """How many ways lead through a function, and through those inside it."""
    nodes = list(ast.walk(function))
    branches = sum(isinstance(each, BRANCHES) for each in nodes)
    return 1 + branches + sum(len(each.values) - 1 for each in nodes if isinstance(each, ast.BoolOp))


def test_no_function_is_too_complex() -> None:
    """A function is read once, from top to bottom."""
    complicated = {
        f"{module.name}.{node.name}": complexity(node)
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, Function)
    }
    assert not {name: number for name, number in complicated.items() if number > MOST_COMPLEX}


def test_no_file_is_too_long() -> None:
    """A file is a sitting."""
    lengths = {name: len(module.path.read_text().splitlines()) for name, module in MODULES.items()}
    assert not {name: number for name, number in lengths.items() if number > MOST_LINES}


def test_one_word_for_one_thing() -> None:
    """A class has its name to itself. (Files of one room that stand in for one another, as loops do, share theirs.)."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for module in MODULES.values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(module.room)
    assert not {name: rooms for name, rooms in homes.items() if len(rooms) > 1}


def test_guard_shows_only_what_is_documented() -> None:
    """Every public name of `Guard`, on the class and on what it makes, is in the README."""
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", readme()))))
    shown = {name for name in {*dir(Guard), *vars(Guard())} if not name.startswith("_")}
    assert not shown - words


def readme() -> str:
    """The README, without its blocks of code: their backticks come in threes."""
    return re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)


# -- hazards --

HAZARDS = ROOT / ".github" / "HAZARDS.md"
CITED = re.compile(r"\bH([1-9][0-9]?)\b")


def table() -> dict[int, list[str]]:
    """The rows: number, and what is said of it."""
    rows = {}
    for line in HAZARDS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        number = re.fullmatch(r"H([0-9]+)", cells[0].strip())
        if number:
            rows[int(number[1])] = cells[1:]
    return rows


def cited(*folders: Path) -> dict[int, set[str]]:
    """Which hazards the comments and docstrings of a folder name, and where."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for folder in folders:
        for path in folder.rglob("*.py"):
            for number in CITED.findall(path.read_text()):
                found[int(number)].add(path.name)
    return found


def test_hazards_that_are_cited_are_explained() -> None:
    """Who cites H12 in a comment finds it in .github/HAZARDS.md: symptom, cause, reference, where it is handled."""
    rows = table()
    assert not {
        number: files for number, files in cited(PACKAGE, ROOT / "tests").items() if number not in rows
    }
    for number, cells in rows.items():
        assert len(cells) == 4, (
            f"H{number} has {len(cells)} of symptom, cause, reference, where it is handled"
        )
        assert all(cells), f"H{number} is silent on something"


def test_hazards_are_handled_where_they_say() -> None:
    """Files that the table names are there."""
    for number, cells in table().items():
        for name in re.findall(r"`([\w/.]+\.(?:py|yaml|yml))`", cells[3]):
            assert (PACKAGE / name).exists() or (ROOT / name).exists(), f"H{number}: there is no {name}"


# -- the measuring itself --


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("def f(): pass", 1),
        ("def f(a, b):\n if a and b or a: pass", 4),
        ("def f(a):\n for x in a:\n  try: pass\n  except E: pass", 3),
        ("def f(a): return [x for x in a if x] if a else 0", 3),
    ],
)
def test_complexity_is_counted(code: str, number: int) -> None:
    """A way more for each branch, and for each operand that may be skipped."""
    function = ast.parse(code).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert complexity(function) == number


def test_knots_are_found() -> None:
    """A circle of three is one knot, with what hangs on it left out."""
    assert list(knots({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == [{"a", "b", "c"}]

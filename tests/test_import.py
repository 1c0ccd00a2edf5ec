"""Importing changes nothing and costs little; modules import downward only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cleanup_guard

HEAVY = (
    "argparse",
    "asyncio",
    "dataclasses",
    "inspect",
    "logging",
    "subprocess",
    "typing",
    "typing_extensions",
)

NAMES = "from cleanup_guard import guard, on_exit"


def python(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    return done.stdout.splitlines()


def environment() -> dict[str, str]:
    # -S: no .pth file of the test environment imports something on its own.
    return {"PYTHONPATH": str(Path(cleanup_guard.__file__).parent.parent)}


@pytest.mark.parametrize("names", ["import cleanup_guard", NAMES])
def test_importing_changes_nothing(names: str) -> None:
    """Importing installs no handler, starts no thread, opens no descriptor, registers no atexit or fork hook."""
    code = f"""
import atexit, os, signal, sys, threading
registered = []
atexit.register = lambda *args: registered.append("atexit")
threading._register_atexit = lambda *args: registered.append("threading")
os.register_at_fork = lambda **args: registered.append("fork")
def state():
    handlers = [signal.getsignal(each) for each in signal.valid_signals()]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    fds = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    return handlers, mask, wakeup, len(fds), threading.active_count(), sys.excepthook, sys.unraisablehook, atexit._ncallbacks()
before = state()
{names}
print(state() == before, registered)
"""
    assert python(code) == ["True []"]


def test_importing_loads_no_heavy_module() -> None:
    """The names that every program uses load none of the modules that cost more than the whole package."""
    assert python(f"import sys\n{NAMES}\nprint([each for each in {HEAVY} if each in sys.modules])") == ["[]"]


def test_importing_the_package_loads_none_of_its_modules() -> None:
    """`import cleanup_guard` is a table of contents: names are loaded on first use."""
    code = "import sys, cleanup_guard\nprint([each for each in sys.modules if each.startswith('cleanup_guard.')])"
    assert python(code) == ["[]"]


LAYERS = (
    ("_ground", "_state"),
    ("_report", "_stack"),
    ("_signals",),
    ("_process",),
    ("_run", "_exits", "_forks", "_last_act"),
    ("_watcher",),
    ("_async", "_decorate"),
    ("_guard",),
    ("_asyncio", "_trio"),
)
"""From the bottom up; a module may import from its own layer and from those below."""

LATE = {
    ("_process", "_exits"): "forgetting a stop gives back what the exits know how to give back",
    ("_async", "_asyncio"): "the module for the loop that runs",
    ("_async", "_trio"): "the module for the loop that runs",
}
"""Imports that point up on purpose, each inside a function, with the reason."""


def edges(source: Path) -> set[tuple[str, bool]]:
    """The modules of ours that a file imports at run time, and whether inside a function."""
    found: set[tuple[str, bool]] = set()

    def visit(node: ast.AST, *, late: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for alternative in node.orelse:
                visit(alternative, late=late)
            return
        if (
            isinstance(node, ast.ImportFrom)
            and node.module is not None
            and node.module.startswith("cleanup_guard")
        ):
            inner = node.module.removeprefix("cleanup_guard").removeprefix(".")
            found.update((inner or alias.name, late) for alias in node.names)
        late = late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for each in ast.iter_child_nodes(node):
            visit(each, late=late)

    visit(ast.parse(source.read_text()), late=False)
    return {(name.partition(".")[0], late) for name, late in found}


def test_imports_point_downward() -> None:
    """No module imports one of a higher layer; what does so inside a function is listed with its reason."""
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    folder = Path(cleanup_guard.__file__).parent
    upward = {
        f"{name} imports {target}"
        for name in level
        for file in (
            sorted((folder / name).glob("*.py")) if (folder / name).is_dir() else [folder / f"{name}.py"]
        )
        for target, late in edges(file)
        if level.get(target, len(LAYERS)) > level[name] and not (late and (name, target) in LATE)
    }
    assert not upward, upward

"""Importing changes nothing and costs little."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cleanup_guard

PACKAGE = Path(cleanup_guard.__file__).parent

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


LATE = {"cleanup_guard._hosts.loops"}
"""Only needed where a loop runs, which has loaded more than that."""


def test_what_is_loaded_late_is_there_inside_a_guard() -> None:
    """There may be no descriptor to load it with, and somebody's handler may raise while it is loaded."""
    code = f"import sys\n{NAMES}\nnames = [each for each in sys.modules if each.startswith('cleanup_guard.')]\nprint(names)"
    face = ast.literal_eval(python(code)[0])
    assert "cleanup_guard._guard.guard" in face
    late: set[str] = set()
    for name in face:
        source = PACKAGE.joinpath(*name.split(".")[1:])
        file = source.with_suffix(".py") if source.with_suffix(".py").exists() else source / "__init__.py"
        late |= {
            node.module
            for function in ast.walk(ast.parse(file.read_text()))
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
            for node in ast.walk(function)
            if isinstance(node, ast.ImportFrom) and node.module
        }
    assert late > LATE
    there = f"import sys\n{NAMES}\nwith guard(): print(set({sorted(late - LATE)}) - sys.modules.keys())"
    assert python(there) == ["set()"]

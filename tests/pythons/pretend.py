"""Children that believe to be on another platform: what it does not have is taken from them before they import ours.

What is missing where is not written down here: it is read from typeshed, which comes with mypy. That is not Windows, and not
macOS: how signals, consoles and the kernel behave stays Linux. It shows that no name is used that is not there, and that the
branches for the other platforms do their work.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support import PREAMBLE

MODULES = (
    "fcntl",
    "grp",
    "os",
    "pty",
    "pwd",
    "readline",
    "resource",
    "select",
    "signal",
    "socket",
    "syslog",
    "termios",
    "threading",
    "time",
    "tty",
)
"""Where platforms differ."""


def names(module: str, platform: str) -> set[str]:
    """The names that a module of the standard library has on a platform, with this version of Python."""
    spec = importlib.util.find_spec("mypy")
    assert spec is not None
    assert spec.origin is not None
    stubs = Path(spec.origin).parent / "typeshed" / "stdlib"
    stub = next(each for each in (stubs / f"{module}.pyi", stubs / module / "__init__.pyi") if each.exists())
    known = {"sys": SimpleNamespace(platform=platform, version_info=sys.version_info)}
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            match node:
                case ast.If():
                    true = eval(ast.unparse(node.test), dict[str, Any](known))
                    visit(node.body if true else node.orelse)
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(name)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    found.add(name)
                case ast.ImportFrom(names=aliases):
                    found.update(each.asname or each.name for each in aliases)
                case _:
                    pass

    visit(ast.parse(stub.read_text()).body)
    return {name for name in found if not name.startswith("_")}


def missing(platform: str) -> tuple[list[str], dict[str, list[str]]]:
    """The modules that are here but not on that platform, and the names that other modules do not have there."""
    here = {module: names(module, sys.platform) for module in MODULES}
    there = {module: names(module, platform) for module in MODULES}
    return [module for module in MODULES if here[module] and not there[module]], {
        module: sorted(here[module] - there[module]) for module in MODULES if there[module]
    }


def preamble(platform: str) -> str:
    """What a child runs first."""
    take_away = Path(__file__).with_name("take_away.py").read_text()
    modules, names = missing(platform)
    return f"{take_away}\npretend({platform!r}, {json.dumps(modules)}, {json.dumps(names)})\n{PREAMBLE}"

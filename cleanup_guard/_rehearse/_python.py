"""Puts a guard above a Python program's main(), or changes the one that is there."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from cleanup_guard._rehearse._script import Edit

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_THE_USERS = ("/site-packages/", "/dist-packages/", "/usr/", "/bin/", "/sbin/", "/lib/", "/opt/")
"""Where programs are installed: nobody edits them there."""


def is_the_users(path: str) -> bool:
    """Whether a file is one that somebody wrote for this, and not one that was installed."""
    installed = any(
        part in path if part.endswith("-packages/") else path.startswith(part) for part in NOT_THE_USERS
    )
    return not (installed or path.rpartition("/")[0].endswith("/bin"))


def guarded(text: str, options: Mapping[str, str], defaults: Mapping[str, str]) -> Edit | None:
    """Have main() guarded.

    Args:
        text: of the program.
        options: names and expressions of arguments for the guard.
        defaults: more of them, for a guard that is not there yet.

    Returns:
        None if there is no main(), or the text is not understood.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == "main":
            return _above(text, node, options, defaults)
    return None


def has_guard(text: str) -> bool:
    """Whether main() is guarded already."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(map(_is_guard, node.decorator_list))
        for node in ast.walk(tree)
    )


def _above(
    text: str,
    main: ast.FunctionDef | ast.AsyncFunctionDef,
    options: Mapping[str, str],
    defaults: Mapping[str, str],
) -> Edit:
    lines = text.splitlines(keepends=True)
    top = min([main.lineno, *(each.lineno for each in main.decorator_list)]) - 1
    mine = next((each for each in main.decorator_list if _is_guard(each)), None)
    name = "guard"
    if mine is not None:
        name = ast.unparse(mine.func if isinstance(mine, ast.Call) else mine)
    given = {**(defaults if mine is None else _given(mine)), **options}
    line = f"@{name}({', '.join(f'{option}={value}' for option, value in given.items())})"
    place = top if mine is None else mine.lineno - 1
    lines[place : place if mine is None else mine.end_lineno] = [f"{line}\n"]
    imports = ["import signal\n"] if "signal." in line else []
    lines[top:top] = imports if mine is not None else ["from cleanup_guard import guard\n", *imports]
    return Edit("".join(lines), line, place + 1)


def _is_guard(node: ast.expr) -> bool:
    function = node.func if isinstance(node, ast.Call) else node
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    return bool(name == "guard")


def _given(node: ast.expr | None) -> dict[str, str]:
    if not isinstance(node, ast.Call):
        return {}
    return {each.arg: ast.unparse(each.value) for each in node.keywords if each.arg is not None}

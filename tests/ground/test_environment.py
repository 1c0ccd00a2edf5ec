"""In the C locale Python adds to its environment; nothing that we start is to see that."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what the environment was")

CODE = """
import os
{before}
from cleanup_guard._ground.environment import undo_coercion
undo_coercion()
print(os.environb)
os.execv("/usr/bin/env", ["env"])
"""


def environment_of(code: str, env: dict[str, str]) -> list[str]:
    """What `env` says that is executed at the end of this code, in this environment."""
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return sorted(done.stdout.splitlines())


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"A": "1"},
        {"LC_CTYPE": "C", "A": "1"},
        {"LC_CTYPE": "POSIX"},
        {"LC_CTYPE": ""},
        {"LC_CTYPE": "C.UTF-8"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "LC_CTYPE": "C.UTF-8"},
        {"LANG": "C", "XLC_CTYPE": "C"},
        {"PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_the_environment_is_the_callers(env: dict[str, str]) -> None:
    """What was there is there again, with its value; what was not is not."""
    expected = sorted(f"{name}={value}" for name, value in env.items())
    assert environment_of(CODE.format(before="print = bool"), env) == expected


def test_a_value_that_the_program_has_set_itself_stays() -> None:
    """Only what Python writes is taken back."""
    code = CODE.format(before="print = bool; os.environ['LC_CTYPE'] = 'de_DE.UTF-8'")
    assert environment_of(code, {}) == ["LC_CTYPE=de_DE.UTF-8"]


def test_where_the_kernel_does_not_know_nothing_is_changed() -> None:
    """The memory of the first environment is painted over, as setproctitle does."""
    code = CODE.format(
        before="""
print = bool
import builtins
class Painted:
    def __init__(self, *args): pass
    def __enter__(self): return self
    def __exit__(self, *args): pass
    def read(self): return b"title" + bytes(20)
builtins.open = Painted
"""
    )
    assert environment_of(code, {"A": "1"}) == ["A=1", "LC_CTYPE=C.UTF-8"]

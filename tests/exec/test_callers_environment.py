"""The program's environment is the caller's, byte for byte: in the C locale, with bytes that are no text, with odd entries."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

COMMAND = [sys.executable, "-m", "cleanup_guard", "exec"]
SHOW = ["cat", "/proc/self/environ"]

START = """
import ctypes, os, sys
entries = eval(sys.argv[1]); command = [os.fsencode(word) for word in sys.argv[2:]]
strings = lambda items: (ctypes.c_char_p * (len(items) + 1))(*items, None)
ctypes.CDLL(None).execve(command[0], strings(command), strings(entries))
"""


def environment_through(command: list[str], entries: list[bytes]) -> list[bytes]:
    """What the program at the end of a command finds, if the command is started with these entries."""
    assert ctypes.sizeof(ctypes.c_char_p)
    done = subprocess.run(
        [sys.executable, "-c", START, repr(entries), *command], capture_output=True, check=True
    )
    return done.stdout.split(b"\0")[:-1]


PATH = b"PATH=" + os.environb[b"PATH"]


@pytest.mark.parametrize(
    "entries",
    [
        [PATH],
        [PATH, b"A=1"],
        [b"LC_CTYPE=C", PATH, b"A=1"],
        [b"LC_CTYPE=C.UTF-8", PATH],
        [PATH, b"LANG=C", b"LC_ALL=C"],
        [PATH, b"A=\xff\xfe", b"\xc3=\x80"],
        [PATH, b"A=1", b"A=2", b"no equals sign", b"=C:=C:\\", b"", b"B=a=b", b"C="],
        [PATH, b"PYTHONCOERCECLOCALE=0", b"PYTHONUTF8=0"],
        [b"LC_CTYPE=POSIX", b"LC_CTYPE=again", PATH],
    ],
)
def test_without_options_not_a_byte_is_different(entries: list[bytes]) -> None:
    """Not even the order, nor what is there twice or has no name."""
    assert environment_through([*COMMAND, *SHOW], entries) == entries


def test_only_what_was_asked_for_is_different() -> None:
    """A variable that was there twice is there once."""
    entries = [PATH, b"A=1", b"B=1", b"odd", b"A=2", b"C=1", b"C=2"]
    command = [*COMMAND, "--env", "A=3", "--unset", "C", "--env", "D=\udcff", *SHOW]
    assert environment_through(command, entries) == [PATH, b"B=1", b"odd", b"A=3", b"D=\xff"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_finds_nothing_that_python_added() -> None:
    """He may not read what tells it any more: it is read before."""
    found = environment_through([*COMMAND, "--user", "65534:65534", "env", "-0"], [PATH, b"A=1"])
    own = (b"HOME=", b"USER=", b"LOGNAME=")
    assert [each for each in found if not each.startswith(own)] == [PATH, b"A=1"]


def test_exec_into_hands_on_what_it_was_given_and_what_was_changed_since() -> None:
    """In Python, without `env`."""
    code = (
        "import os; os.environ['B'] = '2'; os.environ.pop('C', None); "
        "from cleanup_guard import exec_into; exec_into('cat', '/proc/self/environ')"
    )
    entries = [PATH, b"A=1", b"C=1", b"odd"]
    assert environment_through([sys.executable, "-c", code], entries) == [PATH, b"A=1", b"odd", b"B=2"]


def test_an_exec_that_fails_takes_its_changes_back() -> None:
    """What only the exec finds out: the arguments are too long."""
    code = """
import os
from cleanup_guard import exec_into
before = dict(os.environb)
try: exec_into("true", "x" * (1 << 20), user=os.getuid())
except OSError as error: print(error.strerror)
print(dict(os.environb) == before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["True"]
    assert "are too long" in done.stdout

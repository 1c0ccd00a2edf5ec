"""Nothing of ours is imported once a guard is entered: shown with descriptors used up, and with our files replaced."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest
from support import PREAMBLE, child

import cleanup_guard

LAZY = [
    pytest.param(
        ["-X", "lazy_imports=all"],
        id="lazy",
        marks=pytest.mark.skipif(sys.version_info < (3, 15), reason="3.15"),
    ),
    pytest.param([], id="as ever"),
]

SHORTAGES = ["descriptors", "files"]

ABORTED = (-signal.SIGABRT,) if sys.version_info < (3, 14) else ()
"""Up to 3.13 CPython ends daemon threads at the very end by pthread_exit, which loads libgcc_s: not without a descriptor."""

EXHAUST = """
import errno, resource
def exhaust():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    while True:
        try: os.dup(0)
        except OSError as error:
            assert error.errno == errno.EMFILE
            return
"""

WAYS = {
    "return": ("pass", [], 0),
    "exception": ("raise ValueError", [], 1),
    "sys.exit": ("sys.exit(5)", [], 5),
    "SIGTERM": ("time.sleep(60)", [signal.SIGTERM], 143),
    "SIGINT": ("time.sleep(60)", [signal.SIGINT], -signal.SIGINT),
    "SIGTERM, swallowed": (
        "while True:\n        try: time.sleep(60)\n        except BaseException: pass",
        [signal.SIGTERM],
        143,
    ),
    "SIGTERM, stuck in C": ("libc_sleep()", [signal.SIGTERM], 143),
    "SIGTERM, cooperative": ("while not current_guard().wait(1): pass", [signal.SIGTERM], 143),
    "request_stop": ("current_guard().request_stop('lost', status=7); time.sleep(60)", [], 7),
    "a callback fails": ("on_exit(int, 'x')", [], 1),
    "a callback fails after SIGTERM": (
        "on_exit(int, 'x'); time.sleep(60)",
        [signal.SIGTERM],
        143,
    ),
    "a callback hangs": (
        "current_guard().options(timeout=1).callback(time.sleep, 60); time.sleep(60)",
        [signal.SIGTERM],
        143,
    ),
}


@pytest.mark.parametrize("flags", LAZY)
@pytest.mark.parametrize("shortage", SHORTAGES)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_callbacks_run(
    flags: list[str], shortage: str, way: tuple[str, list[int], int], tmp_path: Path
) -> None:
    """However it ends, the callback runs and the status is right, though nothing can be loaded any more."""
    body, signals, status = way
    copy = tmp_path / "cleanup_guard"
    shutil.copytree(Path(cleanup_guard.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"""{EXHAUST}
import hashlib
hashlib.pbkdf2_hmac("sha256", b"", b"", 1)  # loads it
def libc_sleep():
    fork_free = hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
@guard(grace=8, interrupt={"cooperative" not in body and "wait(1)" not in body})
def main():
    on_exit(os.write, 1, b"callback\\n")
    ready()
    sys.stdin.readline()
    if {shortage == "descriptors"}: exhaust()
    os.write(1, b"go\\n")
    {body}
import cleanup_guard
assert cleanup_guard.__file__.startswith({str(tmp_path)!r})
main()
"""
    with child(code, preamble=PREAMBLE, flags=flags, env={"PYTHONPATH": str(tmp_path)}, stdin=-1) as started:
        assert started.process.stdin is not None
        if shortage == "files":
            for path in copy.rglob("*.py"):
                path.write_text("raise RuntimeError('an upgrade: half of another version')\n")
        with started.process.stdin as stdin:
            stdin.write(b"\n")
        started.wait_for_line("go")
        if signals:
            started.signal(*signals)
        ended = started.end()
    assert ended.out == ["go", "callback"], ended.err
    assert ended.status in {status, *(ABORTED if shortage == "descriptors" else ())}, ended.err
    assert "half of another version" not in ended.err
    assert f"Too many open files: '{tmp_path}" not in ended.err

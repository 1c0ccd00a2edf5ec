"""The recipe of training: stopped by each of its callers, it saves once, leaves no worker, and goes on from there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from guests.stage import require
from support import CLEAN, PATIENCE, child, wait_until

pytestmark = [pytest.mark.guests, pytest.mark.one_python]

PROGRAM = Path(__file__).parents[2] / "examples" / "training" / "workers.py"


class Notice(BaseHTTPRequestHandler):
    """The address of a machine that is taken away at once."""

    def do_GET(self) -> None:
        """It is there."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not to stderr."""


def group(leader: int) -> list[int]:
    """Who else is in its process group."""
    members = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(ProcessLookupError):  # it has just gone
            if os.getpgid(int(name)) == leader != int(name):
                members.append(int(name))
    return members


def ignores_ctrl_c(pid: int) -> bool:
    """Whether SIGINT is ignored there."""
    ignored = re.search(r"^SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return ignored is not None and bool(int(ignored[1], 16) >> signal.SIGINT - 1 & 1)


def train(*arguments: str) -> str:
    """A program that runs the recipe as main, from its own file, which workers may import."""
    return f"import os, sys\nos.execv(sys.executable, {[sys.executable, str(PROGRAM), *arguments]!r})"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda it: it.name)
def test_a_stop_saves_once_and_the_next_run_goes_on(signum: signal.Signals, tmp_path: Path) -> None:
    """One checkpoint of a whole step, no worker left, and the next run begins with the step after it."""
    require("tqdm")
    path = tmp_path / "checkpoint.json"
    with child(train(str(path), "100000"), preamble="", ready="step 3", start_new_session=True) as started:
        wait_until(lambda: all(map(ignores_ctrl_c, group(started.pid))), "the workers' first line")
        # Ctrl-C is sent as a terminal does: to all of them.
        (os.killpg if signum == signal.SIGINT else os.kill)(started.pid, signum)
        ended = started.end()
        wait_until(lambda: not group(started.pid), "the end of the workers")
    assert ended.status == (-signum if signum == signal.SIGINT else 128 + signum), ended.err
    assert "Traceback" not in ended.err
    step, loss = json.loads(path.read_text())
    assert (ended.out[-2:], ended.out.count(f"saved {step}")) == ([f"step {step}", f"saved {step}"], 1)
    assert loss == step  # whole steps
    assert list(tmp_path.iterdir()) == [path]
    again = subprocess.run(
        [sys.executable, str(PROGRAM), str(path), str(step + 2)],
        capture_output=True,
        text=True,
        env=CLEAN,
        timeout=PATIENCE,
        check=True,
    )
    lines = [f"begins at {step}", f"step {step + 1}", f"step {step + 2}", f"saved {step + 2}"]
    assert again.stdout.splitlines() == lines


def test_a_notice_is_a_stop(tmp_path: Path) -> None:
    """A thread that looks at an address stops main, and the reason is told."""
    require("tqdm")
    path = tmp_path / "checkpoint.json"
    with HTTPServer(("127.0.0.1", 0), Notice) as server:
        server.timeout = PATIENCE
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        with child(train(str(path), "100000", url), preamble="", ready="begins at 0") as started:
            ended = started.end()
        thread.join()
    assert "the machine will be taken away" in ended.err
    step, _ = json.loads(path.read_text())
    assert ended.out[-1] == f"saved {step}"

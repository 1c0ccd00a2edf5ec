"""Requests in flight at a stop, and what a platform does before it: --request and --pre-stop."""

from __future__ import annotations

import socket

import pytest
from check.rehearsed import SIMULATED, UNPRIVILEGED, Told, check

MODES = pytest.mark.parametrize(
    "wrapper", [[], SIMULATED, UNPRIVILEGED], ids=["pid-namespace", "simulated", "user"]
)

SERVER = """\
import http.server, os, signal, sys, threading, time
class Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.3)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *words): pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = {daemons}
server = Server(("127.0.0.1", int(sys.argv[1])), Slow)
def stop(signum, frame):
    {stop}
signal.signal(signal.SIGTERM, stop)
os.write(1, b"ready\\n")
server.serve_forever()
server.server_close()
"""
FINISHES = SERVER.format(daemons=False, stop="threading.Timer(1, server.shutdown).start()")
DROPS = SERVER.format(daemons=True, stop="os._exit(0)")


def stopped_while_asked(program: str) -> Told:
    """A server that is stopped with requests in flight."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    words = ["--no-try", "--grace", "30", "--ready", "ready", "--request", f"http://127.0.0.1:{port}/x?y"]
    return check(*words, "--", "python", "-I", "app.py", str(port), files={"app.py": program})


def test_a_server_that_finishes_what_it_has_begun() -> None:
    """All that were in flight got their answer; so did those who came while it still listened."""
    told = stopped_while_asked(FINISHES)
    counted = told.rehearsal.requests
    assert counted is not None
    assert told.status == 0, told.out
    assert 1 <= counted.in_flight <= 4
    assert counted.served >= 1
    assert (counted.answered, counted.lost) == (counted.in_flight, 0)


def test_a_server_that_drops_its_requests() -> None:
    """It is not clean, and how many of how many were lost is said."""
    told = stopped_while_asked(DROPS)
    counted = told.rehearsal.requests
    assert counted is not None
    assert told.status == 1
    assert counted.lost >= 1
    (advice,) = [each for each in told.rehearsal.advice if each.fault]
    assert advice.code == "requests-lost"
    assert f"{counted.lost} of {counted.in_flight} requests" in advice.text


def test_a_server_that_never_answers() -> None:
    """There is nothing to count: status 3, and why."""
    told = check(
        *(
            "--timeout",
            "1",
            "--after",
            "0.1",
            "--request",
            "http://127.0.0.1:1/",
            "--no-try",
            "--",
            "sleep",
            "60",
        ),
    )
    assert told.status == 3
    assert "requests to 'http://127.0.0.1:1/' were not all answered before the stop: " in told.err


HOOKED = """\
#!/bin/sh
trap 'echo stopped; exit 0' TERM
trap 'echo hook' USR1
echo ready
while :; do sleep 0.05; done
"""


@MODES
def test_a_hook_comes_before_the_stop(wrapper: list[str]) -> None:
    """It runs where the program does, sees it as PID 1, and what it takes is part of the grace period."""
    hook = "sh -c 'sleep 0.5; kill -USR1 1; sleep 0.2'" if wrapper is not SIMULATED else "sleep 0.7"
    words = ["--no-try", "--grace", "20", "--ready", "ready", "--pre-stop", hook, "--", "./it.sh"]
    found = check(*words, files={"it.sh": HOOKED}, wrapper=wrapper).rehearsal
    assert (found.clean, found.hook_status) == (True, 0), found
    assert found.seconds >= found.hook >= 0.6
    assert found.output.split() == (["hook"] if wrapper is not SIMULATED else []) + ["stopped"]
    assert min(heard.at for heard in found.processes[0].heard if heard.name == "SIGTERM") >= 0.6


def test_a_hook_that_takes_all_the_time() -> None:
    """The stop comes all the same, and two seconds are left, as the kubelet leaves them."""
    words = ["--no-try", "--grace", "1", "--ready", "ready", "--pre-stop", "sleep 1000", "--", "./it.sh"]
    found = check(*words, files={"it.sh": HOOKED}).rehearsal
    assert (found.clean, found.output) == (True, "stopped\n"), found
    assert found.hook >= 1


def test_a_hook_that_fails_is_told_of() -> None:
    """It is a remark: the stop goes on."""
    words = [
        "--no-try",
        "--grace",
        "20",
        "--ready",
        "ready",
        "--pre-stop",
        "no-such-program",
        "--",
        "./it.sh",
    ]
    found = check(*words, files={"it.sh": HOOKED}).rehearsal
    assert [(each.code, each.fault) for each in found.advice] == [("hook-failed", False)]

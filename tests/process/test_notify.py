"""A service of systemd's `Type=notify`: what is sent to its socket, which is a real one here."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import child

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")

PROGRAM = """
def wait(): time.sleep(0.2)
with guard(grace={grace}, drain={drain}) as g:
    g.callback(wait)
    g.options(name="close the database").callback(wait)
    g.ready()
    ready()
    {main}
"""


class Systemd:
    """Receives what a service says."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(0)
        self.environ = {"NOTIFY_SOCKET": address}

    def said(self) -> list[str]:
        """All lines so far."""
        lines: list[str] = []
        while True:
            try:
                lines += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return lines


@pytest.fixture(params=["a file", "an abstract name"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    """Somebody who listens."""
    name = f"{tmp_path}/notify" if request.param == "a file" else f"@cleanup_guard {os.getpid()} {tmp_path}"
    made = Systemd(name)
    with made.socket:
        yield made


def test_systemd_is_told_of_a_stop(systemd: Systemd) -> None:
    """Ready, stopping, what is being done, and how much time it takes at most; each once."""
    code = PROGRAM.format(grace=20, drain=0.2, main="time.sleep(60)")
    with child(code, env=systemd.environ) as started:
        assert systemd.said() == ["READY=1", "STATUS=running"]
        started.signal(signal.SIGTERM)
        assert started.end().status == 143
    said = systemd.said()
    assert said[0] == "STOPPING=1"
    assert said.count("STOPPING=1") == 1
    assert "STATUS=draining" in said
    assert "STATUS=cleaning up: callback close the database" in said
    assert "STATUS=cleaning up: callback wait" in said
    extended = [line for line in said if line.startswith("EXTEND")]
    found = re.fullmatch(r"EXTEND_TIMEOUT_USEC=(\d+)", extended[0])
    assert found is not None
    assert 10e6 < int(found[1]) < 21e6
    assert len(extended) == 1


def test_without_a_limit_time_is_asked_for_in_portions(systemd: Systemd) -> None:
    """If the program hangs, systemd does not wait for ever."""
    with child(PROGRAM.format(grace=None, drain=0, main="time.sleep(60)"), env=systemd.environ) as started:
        started.signal(signal.SIGTERM)
        started.end()
    assert "EXTEND_TIMEOUT_USEC=30000000" in systemd.said()


def test_a_normal_end_is_told_too(systemd: Systemd) -> None:
    """Main returns: the service is stopping."""
    with child(PROGRAM.format(grace=9, drain=0, main="pass"), env=systemd.environ) as started:
        started.end()
    assert systemd.said() == ["READY=1", "STATUS=running", "STOPPING=1"]


def test_only_the_service_itself_speaks(systemd: Systemd) -> None:
    """What it has started inherits the socket, and is not what systemd waits for."""
    environ = {**systemd.environ, "SYSTEMD_EXEC_PID": str(os.getpid())}
    with child(PROGRAM.format(grace=9, drain=0, main="pass"), env=environ) as started:
        assert started.end().status == 0
    assert systemd.said() == []


@pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1234", ""])
def test_a_socket_that_is_not_there_changes_nothing(address: str) -> None:
    """Nor does one of a kind that is not known."""
    code = PROGRAM.format(grace=9, drain=0, main="time.sleep(60)")
    with child(code, env={"NOTIFY_SOCKET": address}) as started:
        started.signal(signal.SIGTERM)
        ended = started.end()
    assert ended.status == 143
    assert "done after SIGTERM: 2 callbacks" in ended.err

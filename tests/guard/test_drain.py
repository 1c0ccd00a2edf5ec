"""Drain: readiness goes first, the program serves on for a while, and then the stop begins; all of it inside the budget."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from support import child, run, wait_until
from tasks.stage import every_loop, perform

SAY = """
began = time.monotonic()
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def seconds(): return f"{time.monotonic() - began:.1f}"
"""


def test_nothing_happens_to_main_while_it_drains() -> None:
    """Not ready at once; main is not interrupted, `stopping` is false and nobody is woken until the drain is over."""
    ended = run(
        SAY
        + """
with guard(drain=0.5) as g:
    g.on_stop(say, "on_stop")
    g.callback(say, "callback")
    g.ready()
    say(g.is_ready, g.state, g.stopping)
    ready()
    while g.is_ready: time.sleep(0.001)
    say(g.state, g.stopping, g.reason, g.wait(0))
    try: time.sleep(60)
    finally: say("main unwinds", g.state, g.stopping)
""",
        signal.SIGTERM,
    )
    assert ended.out == [
        "draining False SIGTERM False",
        "on_stop",
        "main unwinds unwinding True",
        "callback",
    ]
    lines = ended.err.splitlines()
    assert "draining: not ready any more, serving on for 0.5 s" in lines[1]
    assert ended.seconds >= 0.5
    assert ended.status == 143


def test_a_cooperative_main_serves_on_as_well() -> None:
    """`wait` wakes when the drain is over."""
    ended = run(
        SAY
        + """
with guard(drain=0.5, interrupt=False) as g:
    g.callback(say, "callback")
    ready()
    g.wait()
    say(g.stopping)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["True", "callback"]
    assert ended.seconds >= 0.5
    assert ended.status == 143


def test_a_drain_takes_at_most_half_of_the_grace_period() -> None:
    """Cleanups come first: what does not fit is left out, and said."""
    ended = run(
        SAY
        + """
with guard(drain=30, grace=4) as g:
    g.callback(say, "callback", g)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert "serving on for 1.8 s (30 s do not fit into the grace period)" in ended.err
    assert ended.out[0].startswith("callback")
    assert ended.status == 143


def test_a_second_ctrl_c_ends_the_drain() -> None:
    """A person does not wait for a load balancer."""
    with child(
        SAY
        + """
with guard(drain=60, grace=None) as g:
    g.callback(say, "callback")
    ready()
    time.sleep(60)
"""
    ) as started:
        started.signal(signal.SIGINT)
        wait_until(lambda: "serving on" in started.err, "the drain")
        # Not a guess at how long something takes: presses are two because more than 0.5 s lie between them.
        time.sleep(0.6)
        started.process.send_signal(signal.SIGINT)
        ended = started.end()
    assert ended.out == ["callback"]
    assert ended.status == -signal.SIGINT
    assert ended.seconds < 50


def test_main_that_ends_by_itself_ends_the_drain() -> None:
    """Who leaves the guard serves no longer."""
    ended = run(
        SAY
        + """
with guard(drain=60, grace=None) as g:
    g.callback(say, "callback")
    g.ready()
    ready()
    while g.is_ready: time.sleep(0.001)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["callback"]
    assert ended.status == 143
    assert ended.seconds < 50


def test_main_that_is_stuck_is_taken_over_from_as_ever() -> None:
    """A drain costs the cleanups nothing where main does not serve at all: at half time another thread runs them."""
    ended = run(
        SAY
        + """
import hashlib
with guard(drain=60, grace=6) as g:
    g.callback(say, "callback")
    ready()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["callback"]
    assert "running the callbacks in a thread of ours" in ended.err
    assert ended.status == 143


def test_a_stop_that_is_asked_for_drains_too() -> None:
    """`request_stop` is a stop as any other."""
    ended = run(
        SAY
        + """
with guard(drain=0.3) as g:
    g.callback(say, "callback")
    ready()
    g.request_stop("lease lost", status=7)
    say(g.stopping, g.is_ready)
    time.sleep(60)
"""
    )
    assert ended.out == ["False False", "callback"]
    assert ended.status == 7


def test_a_stop_of_somebody_else_does_not_wait() -> None:
    """Who handles the signal drains in his own way; the program is not ready any more all the same."""
    ended = run(
        SAY
        + """
g = None
def theirs(signum, frame):
    say("theirs")
    raise SystemExit(5)
signal.signal(signal.SIGTERM, theirs)
with guard(drain=60) as g:
    g.ready()
    g.callback(lambda: say("callback", g.is_ready))
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["theirs", "callback False"]
    assert ended.status == 5
    assert ended.seconds < 50


@pytest.mark.parametrize(
    ("platform", "said", "drains"),
    [
        ("KUBERNETES_SERVICE_HOST", "g.ready()", True),
        ("KUBERNETES_SERVICE_HOST", "", False),  # a job: nobody sends it anything
        ("ECS_CONTAINER_METADATA_URI_V4", "g.ready()", False),  # deregistered before the signal
    ],
)
def test_a_program_that_is_ready_serves_on_where_requests_still_come(
    platform: str, said: str, *, drains: bool
) -> None:
    """Kubernetes takes the address away while it sends the signal; elsewhere, or where nobody says ready, nothing waits."""
    ended = run(
        SAY
        + f"""
with guard() as g:
    {said}
    try:
        ready()
        time.sleep(60)
    finally: say("stopped")
""",
        signal.SIGTERM,
        env={platform: "10.0.0.1"},
    )
    assert ("serving on for 3 s" in ended.err) is drains
    assert ended.seconds >= 3 * drains
    assert (ended.out, ended.status) == (["stopped"], 143)


def test_a_guard_that_names_no_drain_at_all_has_none_on_kubernetes() -> None:
    """`drain=0` wins over the platform's."""
    ended = run(
        SAY + "\nwith guard(drain=0) as g:\n    g.ready(); ready(); time.sleep(60)\n",
        signal.SIGTERM,
        env={"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    )
    assert "serving on" not in ended.err
    assert ended.status == 143


@every_loop
def test_tasks_serve_on_while_it_drains(loop: str) -> None:
    """Sections of work begin as ever, and are finished; then main is cancelled."""
    ended = perform(
        loop,
        """
async def main():
    async with guard(drain=0.5) as g:
        g.callback(bye)
        g.ready()
        ready()
        while g.is_ready: await sleep(0.001)
        for number in range(3):
            async with g.work():
                await sleep(0.01)
                say(number, g.stopping)
        await sleep(60)
run_main(main)
""",
        signal.SIGTERM,
    )
    assert ended.out == ["0 False", "1 False", "2 False", "bye"]
    assert ended.status == 143


# -- readiness -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "normal"])
def test_a_file_says_that_the_program_is_ready(tmp_path: Path, end: str) -> None:
    """It is there from `ready` on, and gone as soon as a stop has come, or main leaves; one that was left behind is removed."""
    file = tmp_path / "ready"
    file.write_text("left behind")
    with child(
        SAY
        + f"""
file = {str(file)!r}
with guard(drain=0.2, ready_file=file) as g:
    say("left behind:", os.path.exists(file))
    g.callback(lambda: say("in a callback:", os.path.exists(file)))
    g.ready()
    g.ready()
    ready()
    if {end!r} == "stop": time.sleep(60)
    while not os.path.exists(file + ".end"): time.sleep(0.005)
"""
    ) as started:
        assert "left behind: False" in started.out
        assert file.read_text() == "ready\n"
        if end == "stop":
            started.signal(signal.SIGTERM)
        (tmp_path / "ready.end").touch()
        wait_until(lambda: not file.exists(), "the file to go")
        ended = started.end()
    assert ended.out == ["in a callback: False"]
    assert not file.exists()
    assert ended.status == (143 if end == "stop" else 0)


def test_readiness_needs_a_guard_that_is_entered_and_a_place_for_the_file() -> None:
    """Both are told where they are said."""
    ended = run(
        """
from cleanup_guard import probes
print(probes.answer("/"))
try: guard().ready()
except RuntimeError as error: print(error)
g = guard(ready_file="/nowhere/at/all")
print(g.is_ready, *probes.answer("/", g))
with g:
    print(*probes.answer("/ready", g), *probes.answer("/ready"))
    try: g.ready()
    except OSError as error: print(error.strerror, g.is_ready)
with guard() as g:
    g.ready()
    print(*probes.answer("/health/ready", g), *probes.answer("/health/live", g), *probes.answer("/live/"))
    with guard(): print(g.is_ready)
    print(g.is_ready)
print(g.is_ready, *probes.answer("/", g), *probes.answer("/live", g))
ready()
"""
    )
    assert ended.status == 0, ended.err


def test_probes_say_alive_while_the_program_cleans_up() -> None:
    """Ready is 503 and says what the program does instead; alive is 200 to the end."""
    ended = run(
        SAY
        + """
from cleanup_guard import probes
def probe(path): say(*probes.answer(path))
def wsgi(path):
    told = []
    body = probes.wsgi()({"PATH_INFO": path}, lambda status, headers: told.append((status, dict(headers))))
    say(told[0][0], told[0][1]["content-length"], b"".join(body).decode())
with guard(drain=0.3) as g:
    g.callback(probe, "/live")
    g.callback(probe, "/ready")
    g.callback(wsgi, "/health/ready")
    probe("/ready")
    g.ready()
    wsgi("/health/ready")
    ready()
    while g.is_ready: time.sleep(0.001)
    probe("/ready")
    probe("/live")
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.out == [
        "503 draining",
        "200 alive",
        "503 Service Unavailable 11 cleaning up",
        "503 cleaning up",
        "200 alive",
    ]


def test_probes_by_asgi(tmp_path: Path) -> None:
    """Behind a framework's mount, as the examples have it; what is no HTTP is refused."""
    ended = run(
        SAY
        + """
import asyncio
from cleanup_guard import probes
async def ask(path):
    sent = []
    async def send(message): sent.append(message)
    await probes.asgi(g)({"type": "http", "path": path}, None, send)
    say(sent[0]["status"], dict(sent[0]["headers"])[b"cache-control"].decode(), sent[1]["body"].decode())
async def main():
    global g
    async with guard() as g:
        await ask("/ready")
        g.ready()
        await ask("/ready")
        await ask("/live")
        try: await probes.asgi()({"type": "lifespan"}, None, None)
        except NotImplementedError as error: say(error)
asyncio.run(main())
say("end")
ready()
"""
    )
    assert ended.status == 0, ended.err

"""Libraries and programs that take signals, put the default back, or catch what we raise."""

from __future__ import annotations

import signal

import pytest
from guests.stage import LATE, Host, Stopped, as_a_shell_says, check, check_alone, require, stop, without

pytestmark = pytest.mark.guests

TWISTD = "from twisted.scripts.twistd import run; run()"
OWNERS = {
    Host("flag", ("flag.py",), ()): "module job main",
    Host("flag later", ("flag_later.py",), ()): "module main",
    Host("asyncio handler", ("asyncio_handler.py",), ()): "module lifespan job main",
    Host("trio receiver", ("trio_handler.py",), ("trio",)): "module main",
    Host("reactor", ("reactor_main.py",), ("twisted",)): "module main",
    Host(
        "twistd",
        ("-c", TWISTD, "--nodaemon", "--pidfile=", "--python", "twistd_service.py"),
        ("twisted",),
    ): "module",
    Host("gevent handler", ("greenlet_server.py",), ("gevent",)): "module job main",
}
"""Those whose own handler ends them when their work is done, and the places where their users put a guard."""

UNITTEST = Host("unittest --catch", ("-m", "unittest", "--catch", "suite_unittest"), ())

HOSTS = [(host, at, signal.SIGTERM) for host, at in OWNERS.items()]
HOSTS += [(UNITTEST, "module job", signal.SIGINT)]
HOSTS += [
    (host, "module", signal.SIGINT) for host in OWNERS if host.name in {"reactor", "flag", "asyncio handler"}
]


@pytest.mark.parametrize(
    ("host", "signum"), [pytest.param(host, signum, id=f"{host}-{signum.name}") for host, _, signum in HOSTS]
)
def test_an_owner_without_a_guard(host: Host, signum: signal.Signals) -> None:
    """It finishes its work by itself."""
    check_alone(host, signum)


@pytest.mark.parametrize(
    ("host", "at", "signum"),
    [
        pytest.param(host, at, signum, id=f"{host}-{at}-{signum.name}")
        for host, ats, signum in HOSTS
        for at in ats.split()
    ],
)
def test_a_guard_cuts_nothing(host: Host, at: str, signum: signal.Signals) -> None:
    """The work is whole, the callback ran once, the program's own end came, the status is what it was."""
    check(host, at, signum)


def ended_by_us(host: Host, at: str, signum: int = signal.SIGTERM) -> Stopped:
    """A stop that ends main: at once, main unwinds, the callback runs once, the status tells the signal."""
    stopped = stop(host, at, signum, env={"CLEANUP_GUARD_GRACE": str(3 * LATE)})
    assert stopped.by_process("callback") == stopped.by_process("registered"), stopped
    assert stopped.times("callback") == 1, stopped
    assert not stopped.stepped_in, stopped
    assert as_a_shell_says(stopped.status) == 128 + signum, stopped
    assert stopped.seconds < LATE, f"not at once:\n{stopped}"
    assert stopped.left == [], stopped
    return stopped


COVERAGE = Host(
    "coverage",
    ("-m", "coverage", "run", "--rcfile=sigterm.coveragerc", "--data-file={folder}/measured", "plain.py"),
    ("coverage",),
)
DDTRACE = Host("ddtrace first", ("ddtrace_first.py",), ("ddtrace",))
DDTRACE_LAST = Host("ddtrace last", ("ddtrace_last.py",), ("ddtrace",))


@pytest.mark.parametrize("host", [COVERAGE, DDTRACE, DDTRACE_LAST], ids=str)
def test_who_raises_the_signal_again_without_a_guard(host: Host) -> None:
    """Their handler puts the default back and raises the signal again: main does not unwind."""
    alone = without(host)
    assert alone.status == -signal.SIGTERM, alone
    assert alone.times("unwound") == 0, alone
    if host is COVERAGE:
        assert "measured" in alone.files, alone


@pytest.mark.parametrize("at", ["module", "job", "main"])
def test_coverage_saves_its_data_and_the_callbacks_run(at: str) -> None:
    """Coverage's handler saves, then dies of the signal: main unwinds first, and the data is there."""
    stopped = ended_by_us(COVERAGE, at)
    assert stopped.times("unwound") == 1, stopped
    assert "measured" in stopped.files, stopped


@pytest.mark.parametrize(
    ("host", "at"),
    [
        (DDTRACE, "module"),
        (DDTRACE, "job"),
        (DDTRACE, "main"),
        (DDTRACE_LAST, "module"),
        (DDTRACE_LAST, "main"),
    ],
    ids=str,
)
def test_a_tracer_that_raises_the_signal_again_does_not_skip_the_callbacks(host: Host, at: str) -> None:
    """Its handlers are there before the guard's, or come after it and call the guard's own."""
    stopped = ended_by_us(host, at)
    assert stopped.times("unwound") == 1, stopped


@pytest.mark.parametrize("at", ["module", "main"])
@pytest.mark.parametrize("when", ["first", "last"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_greenlets_are_unwound_by_callbacks(library: str, when: str, at: str, signum: signal.Signals) -> None:
    """Whichever was imported first, a stop is heard at once, and a callback may switch greenlets."""
    host = Host(f"{library} {when}", ("greenlets.py", library, when), (library,))
    stopped = stop(host, at, signum)
    assert stopped.times("registered") == stopped.times("callback") == 2, stopped
    ends = ["worker 0 unwound", "worker 1 unwound", "workers ended"]
    assert stopped.order(*ends, "callback")[:3] == ends, stopped
    assert as_a_shell_says(stopped.status) == 128 + signum, stopped
    assert not stopped.stepped_in, stopped
    if (
        signum == signal.SIGTERM
    ):  # a KeyboardInterrupt is shown by gevent's hub, and by Python where it is not ours
        assert "Traceback" not in stopped.output, stopped
    for word in ("LoopExit", "BlockingSwitchOut"):
        assert word not in stopped.output, stopped


PYTEST = Host("pytest", ("-m", "pytest", "-p", "no:cacheprovider", "suite_pytest.py"), ("pytest",))


@pytest.mark.parametrize("at", ["module", "job"])
def test_pytest_tears_its_fixtures_down_at_a_sigterm(at: str) -> None:
    """The test in hand ends, no other begins, every fixture is torn down, the callback runs once, in time."""
    stopped = ended_by_us(PYTEST, at)
    assert stopped.times("fixture down") == 1, stopped
    assert stopped.times("session fixture down") == 1, stopped
    assert stopped.times("another test") == 0, stopped


def test_pytest_keeps_its_ctrl_c() -> None:
    """With `on_exit` in a test's module, Ctrl-C is pytest's: as without, and the callback runs once."""
    alone, stopped = without(PYTEST, signal.SIGINT), stop(PYTEST, "module", signal.SIGINT)
    facts = ("fixture down", "session fixture down", "another test")
    assert [stopped.times(fact) for fact in facts] == [alone.times(fact) for fact in facts] == [1, 1, 0]
    assert stopped.status == alone.status == 2, stopped
    assert stopped.times("callback") == 1, stopped


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_click_command(signum: signal.Signals) -> None:
    """Click catches KeyboardInterrupt and SystemExit around its commands: a guard inside has ended before."""
    ended_by_us(Host("click", ("clicked.py",), ("click",)), "main", signum)


def test_flask_on_its_development_server() -> None:
    """A server without a handler of its own is stopped by the guard."""
    require("flask")
    host = Host("flask run", ("flask_app.py", "{socket}"), ("flask",), listens=True)
    for at in ("module", "main"):
        ended_by_us(host, at)

"""The pytest plugin: a fixture, an end for what tests register, and a SIGTERM that tears fixtures down.

Every pytest run where this package is installed imports it, so it imports nothing else of it.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    from cleanup_guard._guard.stay import Stay
    from cleanup_guard.testing import Rehearsal


@pytest.fixture(name="rehearse", scope="session")
def _rehearse() -> Callable[..., Rehearsal]:
    """Rehearse a stop: `assert rehearse(["python", "app.py"], ready="started").clean`. See cleanup_guard.testing.rehearse."""
    from cleanup_guard import testing

    def rehearse(*args: object, **kwargs: object) -> Rehearsal:
        __tracebackhide__ = True  # a failure is about the program, not about us
        found = testing.rehearse(*args, **kwargs)  # type: ignore[arg-type]
        print(found)  # noqa: T201 - pytest shows it if the test fails
        return found

    return rehearse


def _as_it_is() -> Generator[None, object, object]:
    """What pytest does there, and nothing more."""
    return (yield)


# -- what a test registers with `on_exit` ends with the test --


@pytest.fixture(autouse=True)
def _own_guard_of_the_fixtures() -> Generator[None, None, None]:
    """What fixtures of one test register runs after them; what those of a module or a session do, at the end of the run."""
    yield from _own_guard()


def _own_guard() -> Generator[None, object, object]:
    """Run what is registered in the meantime without a guard."""
    around = _set_program(None)
    try:
        result = yield
    except BaseException as error:
        made = _set_program(around)
        if made is not None and made.guard.__exit__(type(error), error, error.__traceback__):
            return None
        raise
    made = _set_program(around)
    if made is not None:
        made.guard.close()
    return result


def _set_program(stay: Stay | None) -> Stay | None:
    """See `cleanup_guard._guard.stay.set_program`. Nothing is imported for it before there is a guard."""
    if "cleanup_guard._guard.stay" not in sys.modules:
        return None
    from cleanup_guard._guard.stay import set_program

    return set_program(stay)


# -- a stop that a guard in a test has taken --


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
    """See `_end_at_a_stop`."""
    return (yield from _end_at_a_stop(_as_it_is()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """See `_end_at_a_stop` and `_own_guard`."""
    return (yield from _end_at_a_stop(_own_guard()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """See `_end_at_a_stop` and `_put_off`."""
    return (yield from _end_at_a_stop(_put_off()))


def _end_at_a_stop(inner: Generator[None, object, object]) -> Generator[None, object, object]:
    """A stop ends the run as Ctrl-C does, fixtures and all: pytest takes a SystemExit for a failed test, and goes on."""
    try:
        return (yield from inner)
    except SystemExit as error:
        from cleanup_guard import SignalExit, current_guard

        if not isinstance(error, SignalExit):
            raise
        guard = current_guard()
        if guard is not None:
            guard.shield().__enter__()  # for the rest of the run: fixtures have what is left of the grace period
        pytest.exit(str(error), returncode=int(error.code or 0))


# -- a stop where there is no guard --


class Terminated(KeyboardInterrupt):
    """SIGTERM, on the way of Ctrl-C: the test in hand ends, no other begins, fixtures are torn down."""


OPTION = "cleanup_guard_sigterm"


def pytest_addoption(parser: pytest.Parser) -> None:
    """One switch."""
    parser.addini(OPTION, "SIGTERM ends the run as Ctrl-C does, and fixtures are torn down", "bool", True)  # noqa: FBT003


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take SIGTERM, if nobody else has: not in the workers of pytest-xdist, whose controller ends them."""
    is_worker = hasattr(config, "workerinput")
    in_main = threading.current_thread() is threading.main_thread()
    is_free = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if config.getini(OPTION) and in_main and is_free and not is_worker:
        signal.signal(signal.SIGTERM, _terminate)
        _register_at_fork()


def pytest_unconfigure() -> None:
    """Put SIGTERM back."""
    _put_back()


def _put_back() -> None:
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


MASK = threading.local()


@functools.cache
def _register_at_fork() -> None:
    if sys.platform != "win32":
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_let_go_in_child)


def _hold() -> None:
    """What a test forks dies of SIGTERM as it would without us, even if that comes before the handler is put back there."""
    if sys.platform != "win32" and signal.getsignal(signal.SIGTERM) is _terminate:
        MASK.before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _let_go() -> None:
    mask = vars(MASK).pop("before", None)
    if sys.platform != "win32" and mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _let_go_in_child() -> None:
    if "before" in vars(MASK):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _let_go()


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    if not PUT_OFF or PUT_OFF[-1]:  # the second one interrupts, whatever it finds
        raise Terminated("SIGTERM received")
    PUT_OFF[-1] = True


PUT_OFF: list[bool] = []
"""While fixtures are torn down: whether a SIGTERM has come. It is not raised there: pytest would forget those that are left."""


def _put_off() -> Generator[None, object, object]:
    """A SIGTERM that comes meanwhile is raised afterwards."""
    PUT_OFF.append(False)
    try:
        result = yield
    finally:
        if PUT_OFF.pop():
            raise Terminated("SIGTERM received")
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """See `_end_when_terminated`."""
    return (yield from _end_when_terminated(_as_it_is()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    """See `_end_when_terminated`."""
    return (yield from _end_when_terminated(_as_it_is()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish() -> Generator[None, object, object]:
    """See `_end_when_terminated` and `_put_off`."""
    return (yield from _end_when_terminated(_put_off()))


def _end_when_terminated(inner: Generator[None, object, object]) -> Generator[None, object, object]:
    """With the status that a shell gives to a SIGTERM, not with that of Ctrl-C."""
    try:
        return (yield from inner)
    except Terminated as error:
        pytest.exit(str(error), returncode=128 + signal.SIGTERM)

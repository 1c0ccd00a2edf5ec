"""Hooks are told everything, each event once, whatever they are and whatever they raise."""

from __future__ import annotations

import signal

import pytest
from support import run


@pytest.mark.parametrize("stopped", [False, True], ids=["return", "stop"])
def test_a_hook_need_not_be_hashable(stopped: bool) -> None:
    """A hook that is a dataclass is told all events, once although two guards share it."""
    ended = run(
        """
from dataclasses import dataclass, field
@dataclass
class Hook:
    seen: list = field(default_factory=list)
    def __call__(self, event): self.seen.append(type(event).__name__)
hook = Hook()
atexit.register(lambda: print(hook.seen.count("Finished"), hook.seen.count("StopReceived"), flush=True))
with guard(hooks=[hook]) as g, guard(hooks=[hook, hook]) as inner:
    g.callback(print, "callback", flush=True)
    ready()
    if sys.argv[1:] == [] and {stopped}: time.sleep(60)
""".replace("{stopped}", str(stopped)),
        *([signal.SIGTERM] if stopped else []),
    )
    assert ended.out[0] == "callback", ended.err
    assert ended.status == (143 if stopped else 0), ended.err
    assert ended.out[1] == ("1 1" if stopped else "3 0"), ended.err


def test_hooks_that_are_equal_are_different_hooks() -> None:
    """Two hooks that compare equal are told both; one whose comparison raises is a hook like any other."""
    ended = run(
        """
class Hook:
    def __init__(self, name): self.name = name
    def __eq__(self, other): return True
    def __hash__(self): return 1
    def __call__(self, event): seen.append(self.name)
class Odd(Hook):
    def __eq__(self, other): raise ValueError("not comparable")
    __hash__ = None
seen = []
atexit.register(lambda: print(sorted(set(seen)), flush=True))
ready()
with guard(hooks=[Hook("a"), Hook("b"), Odd("c"), Odd("d")]) as g:
    g.callback(print, "callback", flush=True)
    signal.raise_signal(signal.SIGTERM)
    time.sleep(60)
"""
    )
    assert (ended.out, ended.status) == (["callback", "['a', 'b', 'c', 'd']"], 143), ended.err


HOOK_RAISES = ["SystemExit(3)", "KeyboardInterrupt", "GeneratorExit", "BaseException('x')", "ValueError('x')"]


@pytest.mark.parametrize("raises", HOOK_RAISES)
def test_a_hook_that_raises_is_told_the_next_event_too(raises: str) -> None:
    """Whatever a hook raises: events are told on, to it and to the others, and no exit waits for it."""
    ended = run(
        f"""
told, others = [], []
def hook(event):
    told.append(event)
    raise {raises}
ready()
began = time.monotonic()
for _ in range(8):
    with guard(hooks=[hook, others.append]) as g: g.callback(int)
took = time.monotonic() - began
with guard(hooks=[hook, others.append]): pass
limit = time.monotonic() + 20
while len(others) < 9 and time.monotonic() < limit: time.sleep(0.01)
print(len(told) >= 9, len(others) >= 9, took < 4 or took)
"""
    )
    assert (ended.out, ended.status) == (["True True True"], 0), ended.err


@pytest.mark.parametrize("raises", HOOK_RAISES)
def test_a_hook_that_raises_does_not_change_the_stop(raises: str) -> None:
    """SIGTERM with such a hook: the callbacks run, and the status is 143."""
    ended = run(
        f"""
others = []
atexit.register(lambda: print([type(each).__name__ for each in others].count("Finished"), flush=True))
def hook(event): raise {raises}
with guard(hooks=[hook, others.append]) as g:
    g.callback(print, "callback", flush=True)
    g.on_stop(hook, None)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["callback", "1"], 143), ended.err
    assert ended.seconds < 5

"""Whatever is registered, however badly its name, its equality or its hash behave: it is called, and costs nobody his turn."""

from __future__ import annotations

import signal
import sys

import pytest
from support import run

NAMELESS = {
    "a weak proxy that is dead": """
import weakref
class Thing:
    def __call__(self): pass
thing = Thing()
strange = weakref.proxy(thing)
def break_it():
    global thing
    del thing
""",
    "an unbound local proxy": """
class Proxy:
    def __getattr__(self, name): raise RuntimeError("working outside of a context")
    def __call__(self): raise RuntimeError("working outside of a context")
    __class__ = property(lambda self: self.__getattr__("__class__"))
strange = Proxy()
def break_it(): pass
""",
    "a repr that raises": """
class Thing:
    def __call__(self): raise LookupError
    def __repr__(self): raise ValueError("no repr")
strange = Thing()
def break_it(): pass
""",
    "a name that raises": """
class Thing:
    def __call__(self): raise LookupError
    __name__ = property(lambda self: 1 / 0)
    def __getattr__(self, name): 1 / 0
    def __repr__(self): raise ValueError("no repr")
strange = Thing()
def break_it(): pass
""",
    "a name that exits": """
class Thing:
    def __call__(self): raise LookupError
    __name__ = property(lambda self: sys.exit(9))
    def __getattr__(self, name): raise AttributeError(name) if name != "__qualname__" else SystemExit(9)
    def __repr__(self): sys.exit(9)
strange = Thing()
def break_it(): pass
""",
    "a partial of such": """
import functools
class Thing:
    def __call__(self): raise LookupError
    def __repr__(self): raise ValueError("no repr")
strange = functools.partial(Thing(), )
def break_it(): pass
""",
    "a method of such": """
class Thing:
    def method(self): raise LookupError
    def __repr__(self): raise ValueError("no repr")
strange = Thing().method
def break_it(): pass
""",
    "a name that is no text": """
class Thing:
    __name__ = 7
    def __call__(self): raise LookupError
strange = Thing()
strange.__qualname__ = 8
def break_it(): pass
""",
    "an error without words": """
class Mute(Exception):
    def __str__(self): raise ValueError("no words")
    __repr__ = __str__
def strange(): raise Mute
def break_it(): pass
""",
    "an error that exits when it is shown": """
class Mute(Exception):
    def __str__(self): sys.exit(9)
    __repr__ = __str__
def strange(): raise Mute
def break_it(): pass
""",
}


@pytest.mark.parametrize("how", ["callback", "options", "push"])
@pytest.mark.parametrize("code", NAMELESS.values(), ids=NAMELESS)
def test_a_failing_callback_without_a_name_costs_the_others_nothing(code: str, how: str) -> None:
    """The callbacks before and after it run, and the guard says that one has failed."""
    register = {
        "callback": "g.callback(strange)",
        "options": "g.options(timeout=5).callback(strange)",
        "push": "g.push(lambda *_: strange())",
    }[how]
    ended = run(
        code
        + f"""
ready()
try:
    with guard() as g:
        g.callback(print, "first", flush=True)
        {register}
        g.callback(print, "last", flush=True)
        break_it()
except CleanupError as error: print(len(error.exceptions), flush=True)
os.write(1, b"the end\\n")
os._exit(0)  # the error itself must not be shown
"""
    )
    assert (ended.out, ended.status) == (["last", "first", "1", "the end"], 0), ended.err


@pytest.mark.parametrize("code", NAMELESS.values(), ids=NAMELESS)
def test_neither_does_it_during_a_stop(code: str) -> None:
    """SIGTERM: the others run, and the status is 143."""
    ended = run(
        code
        + """
with guard() as g:
    g.callback(print, "first", flush=True)
    g.callback(strange)
    g.callback(print, "last", flush=True)
    g.on_stop(strange)
    break_it()
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["last", "first"], 143), ended.err


@pytest.mark.parametrize("code", NAMELESS.values(), ids=NAMELESS)
def test_nor_where_it_is_interrupted(code: str) -> None:
    """Its time is over, the report needs its name, and the process still ends in time with all it owes."""
    ended = run(
        code
        + """
with guard(grace=3) as g:
    g.callback(print, "first", flush=True)
    kind = type(strange)
    if kind.__module__ == "__main__": kind.__call__ = lambda self: time.sleep(60)
    g.options(timeout=0.5).callback(strange)
    g.callback(print, "last", flush=True)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert (ended.out, ended.status) == (["last", "first"], 143), ended.err


@pytest.mark.parametrize("code", NAMELESS.values(), ids=NAMELESS)
def test_nor_on_an_event_loop(code: str) -> None:
    """The same for a guard of a task, whose other callbacks are awaited."""
    if sys.version_info < (3, 13) and "__repr__ = __str__" in code:
        pytest.skip("asyncio.run shows the exception to itself, in signal.getsignal")
    ended = run(
        "import asyncio\n"
        + code
        + """
ready()
async def tell(word): print(word, flush=True)
async def main():
    async with guard() as g:
        g.callback(tell, "first")
        g.callback(strange)
        g.callback(tell, "last")
        break_it()
try: asyncio.run(main())
except CleanupError as error: print(len(error.exceptions), flush=True)
os._exit(0)
"""
    )
    assert (ended.out, ended.status) == (["last", "first", "1"], 0), ended.err


UNHASHABLE = """
from dataclasses import dataclass, field
@dataclass
class {name}:
    seen: list = field(default_factory=list)
    def __call__(self, *args): self.seen.append(args); print("{name}", flush=True)
"""


def test_callbacks_need_not_be_hashable_or_comparable() -> None:
    """Neither need callbacks, nor those of `on_stop`; `unregister` of another finds its own among them."""
    ended = run(
        UNHASHABLE.format(name="Callback")
        + """
class Odd:
    def __eq__(self, other): raise ValueError("not comparable")
    __hash__ = None
    def __call__(self): print("Odd", flush=True)
with guard() as g:
    g.callback(Callback())
    g.callback(Odd())
    g.callback(print, "never")
    g.on_stop(Callback())
    g.on_stop(Odd())
    try: print(unregister(print), flush=True)
    except ValueError as error: print(error, flush=True)
    ready()
    time.sleep(60)
""",
        signal.SIGTERM,
    )
    assert ended.status == 143, ended.err
    assert [ended.out.count(each) for each in ("Callback", "Odd")] == [2, 2], ended.err


DYNAMIC = {
    "everything is there": """
class Dynamic:
    def __getattr__(self, name): return Dynamic()
    def __call__(self, *args): print("called", flush=True)
strange = Dynamic()
""",
    "what is missing is a KeyError": """
class Dynamic:
    def __getattr__(self, name): raise KeyError(name)
    def __call__(self, *args): print("called", flush=True)
strange = Dynamic()
""",
    "an RPC method": """
import xmlrpc.client
server = xmlrpc.client.ServerProxy("http://localhost:9")
class Method(type(server.shutdown)):
    def __call__(self, *args): print("called", flush=True)
strange = Method(None, "shutdown")
""",
    "a mock": """
from unittest import mock
strange = mock.MagicMock(side_effect=lambda *_: print("called", flush=True))
""",
    "what is missing is a SystemError": """
class Dynamic:
    def __getattr__(self, name): raise SystemError(name)
    def __call__(self, *args): print("called", flush=True)
strange = Dynamic()
""",
}

REGISTERS = {
    "callback": "g.callback(strange)",
    "options": "g.options(name='a name').callback(strange)",
    "push": "g.push(strange)",
    "on_exit": "on_exit(strange)",
    "on_exit without a guard": None,
    "in a task": None,
}


@pytest.mark.parametrize("how", REGISTERS)
@pytest.mark.parametrize("code", DYNAMIC.values(), ids=DYNAMIC)
def test_what_has_every_attribute_is_a_callback_like_any_other(code: str, how: str) -> None:
    """Callables with a dynamic `__getattr__` (RPC proxies, mocks) are registered and called, and not taken for coroutines."""
    if how == "on_exit without a guard":
        program = "ready()\non_exit(strange)\n"
    elif how == "in a task":
        program = """
ready()
import asyncio
async def main():
    async with guard() as g: g.callback(strange)
asyncio.run(main())
"""
    else:
        program = f"ready()\nwith guard() as g: {REGISTERS[how]}\n"
    if how == "push" and "mock" in code:
        pytest.skip("it has an __exit__, too, which is what is pushed")
    ended = run(code + program)
    assert (ended.out, ended.status) == (["called"], 0), ended.err


def test_a_mock_of_a_coroutine_function_is_awaited() -> None:
    """`AsyncMock` is one, and is awaited where it can be."""
    ended = run(
        """
import asyncio
from unittest import mock
ready()
strange = mock.AsyncMock()
async def main():
    async with guard() as g: g.callback(strange, 1)
asyncio.run(main())
print(strange.await_count)
"""
    )
    assert (ended.out, ended.status) == (["1"], 0), ended.err

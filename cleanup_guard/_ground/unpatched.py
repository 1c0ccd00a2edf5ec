"""What gevent and eventlet replace, as it was before: whichever was imported first."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select

BUILTIN = type(len)
"""Functions that are written in C."""


def original(name: str, attribute: str) -> object:
    """A function of a module as it was before anybody patched it: another copy of a module in C can be made anew."""
    found = getattr(__import__(name), attribute, None)
    if isinstance(found, BUILTIN) or (isinstance(found, type) and found.__module__ == name):
        return found
    import importlib.util

    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)


OS = "posix" if "posix" in sys.builtin_module_names else "nt"
"""The module that `os` is made of."""

if TYPE_CHECKING:

    def read(fd: int, length: int, /) -> bytes: ...
    def write(fd: int, data: bytes, /) -> int: ...
    def make_poll() -> select.poll: ...
else:
    read = original(OS, "read")  # eventlet patches os
    write = original(OS, "write")
    make_poll = None if sys.platform == "win32" else original("select", "poll")

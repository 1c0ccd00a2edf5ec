"""What `@guard` can stand over, and one sentence for what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cleanup_guard import guard


def plain() -> str:
    return "called"


WRONG = {
    "staticmethod": staticmethod(plain),
    "classmethod": classmethod(lambda _: "called"),
    "property": property(lambda _: "called"),
    "class": type("Thing", (), {}),
}


@pytest.mark.parametrize("how", [guard, guard(hooks=())], ids=["@guard", "@guard()"])
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_function_is_refused_in_one_sentence(kind: str, how: Callable[[Any], Any]) -> None:
    """Over a staticmethod, classmethod, property or class `@guard` would do something else: a TypeError names it."""
    with pytest.raises(TypeError, match=rf"(?i){kind}"):
        how(WRONG[kind])


def test_under_them_it_works() -> None:
    """Below `@staticmethod`, `@classmethod` and `@property` it guards the function, and over methods."""

    class Thing:
        @staticmethod
        @guard(signals=())
        def static(value: int) -> int:
            return value

        @classmethod
        @guard(signals=())
        def of_class(cls) -> str:
            return cls.__name__

        @property
        @guard(signals=())
        def attribute(self) -> str:
            return "attribute"

        @guard(signals=())
        def method(self, value: int) -> int:
            return value

    thing = Thing()
    assert (thing.static(1), Thing.static(2)) == (1, 2)
    assert (thing.of_class(), thing.attribute, thing.method(3)) == ("Thing", "attribute", 3)

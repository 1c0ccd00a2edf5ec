"""What a task of trio says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from cleanup_guard._hosts.on_trio import TrioHost
from cleanup_guard._process.process import Process

NO_STOP: Any = None


@pytest.mark.parametrize("by_itself", [False, True], ids=["by another task", "by itself"])
def test_who_has_not_run_since_it_was_cancelled_is_on_its_way(by_itself: bool) -> None:
    """Trio runs what is due in random order, so it may be asked just before. Who has swallowed the cancellation is not."""
    hosts: list[TrioHost] = []
    on_its_way: list[bool] = []

    class Asks(trio.abc.Instrument):
        def before_task_step(self, task: Any) -> None:
            if hosts and task is hosts[0].task and hosts[0].scope.cancel_called:
                on_its_way.append(hosts[0].is_on_its_way())

    async def guarded() -> None:
        hosts.append(TrioHost(Process()))
        if by_itself:
            hosts[0].cancel_task(NO_STOP)
        for _ in range(2):
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                pass
        hosts[0].left(None, None)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded)
            await trio.testing.wait_all_tasks_blocked()
            if not by_itself:
                hosts[0].cancel_task(NO_STOP)

    trio.run(main, instruments=[Asks()])
    assert on_its_way == [True, False]

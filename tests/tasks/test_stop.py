"""The rows of the table of events, where main is a task: `finally` blocks, then callbacks, then the status."""

from __future__ import annotations

import signal

import pytest
from tasks.stage import every_asyncio, every_loop, perform, stage, strange_lines

TERM, INT = signal.SIGTERM, signal.SIGINT
STATUSES = [(TERM, 143), (INT, -INT)]

MAIN = """
@guard
async def main():
    g = current_guard()
    g.callback(say, "first")
    g.callback(bye, "second")
    g.push_async_callback(bye, "third")
    g.callback(say, "fourth")
    {body}
run_main(main)
"""
REVERSED = ["fourth", "third", "second", "first"]
WAITING = """
    try:
        ready()
        await sleep(60)
    finally:
        say("finally")
"""


def program(body: str) -> str:
    return MAIN.format(body=body)


@every_loop
@pytest.mark.parametrize(("signum", "status"), STATUSES)
def test_a_stop_unwinds_main_and_runs_the_callbacks(loop: str, signum: int, status: int) -> None:
    """`finally` first, then all callbacks, sync and async, last registered first; the status is as without a loop."""
    ended = perform(loop, program(WAITING), signum)
    assert (ended.out, ended.status) == (["finally", *REVERSED], status)
    assert not strange_lines(ended)


@every_loop
def test_more_sigterms_change_nothing(loop: str) -> None:
    """Five more while main unwinds and the callbacks run: each runs to its end, once."""
    ended = perform(loop, program(WAITING), *[TERM] * 6)
    assert (ended.out, ended.status) == (["finally", *REVERSED], 143)
    assert not strange_lines(ended)


@every_asyncio
def test_a_finally_that_awaits_has_its_time(loop: str) -> None:
    """It is cancelled once, however long its `finally` waits."""
    body = "try:\n        ready(); await sleep(60)\n    finally:\n        await sleep(0.5); say('finally')"
    ended = perform(loop, program(body), TERM, TERM)
    assert (ended.out, ended.status) == (["finally", *REVERSED], 143)
    assert "again" not in ended.err


@every_loop
def test_a_return_runs_the_callbacks(loop: str) -> None:
    """Main returns: the callbacks run, and nothing is said."""
    ended = perform(loop, program("ready()"))
    assert (ended.out, ended.status, ended.err) == (REVERSED, 0, "")


@every_loop
def test_an_exception_runs_the_callbacks_and_is_shown(loop: str) -> None:
    """Main raises: the callbacks run, the traceback is shown, the status is 1."""
    ended = perform(loop, program("ready(); raise LookupError('lost')"))
    assert (ended.out, ended.status) == (REVERSED, 1)
    assert ended.err.count("LookupError: lost") == 1


@every_loop
def test_failures_are_raised_together_on_a_normal_exit(loop: str) -> None:
    """What callbacks raise, sync and async, comes out as one CleanupError; the others ran."""
    code = """
async def fail(error):
    await sleep(0.01)
    raise error

async def main():
    try:
        async with guard(hooks=()) as g:
            g.callback(bye)
            g.callback(fail, LookupError("one"))
            g.push_async_callback(fail, ValueError("two"))
            ready()
    except CleanupError as error:
        say([str(each) for each in error.exceptions])
run_main(main)
"""
    ended = perform(loop, code)
    assert (ended.out, ended.status) == (["bye", "['two', 'one']"], 0)


@every_loop
def test_failures_during_a_stop_are_told_and_change_nothing(loop: str) -> None:
    """The stop's status stays, the others run, and even `sys.exit` in a callback ends nothing."""
    body = """
    async def fail(error): raise error
    g.callback(fail, LookupError("lost"))
    g.callback(fail, SystemExit(5))
    ready()
    await sleep(60)
"""
    ended = perform(loop, program(body), TERM)
    assert (ended.out, ended.status) == (REVERSED, 143)
    assert "callback main.<locals>.fail failed: LookupError: lost" in ended.err
    assert "6 callbacks, 2 failed" in ended.err


@every_loop
@pytest.mark.parametrize(("option", "status"), [("0", 0), ("'signal'", -TERM), ("None", 143)])
def test_the_exit_status_can_be_chosen(loop: str, option: str, status: int) -> None:
    """As with a guard without a loop."""
    code = f"""
async def main():
    async with guard(exit_status={option}) as g:
        g.callback(bye)
        ready()
        await sleep(60)
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["bye"], status)
    assert not strange_lines(ended)


@every_loop
@pytest.mark.parametrize(
    "how", ["g.request_stop('enough', status=4)", "threading.Thread(target=g.request_stop).start()"]
)
def test_a_stop_can_be_requested(loop: str, how: str) -> None:
    """From the task itself and from any thread: the loop wakes, main is cancelled."""
    ended = perform(loop, program(f"ready()\n    {how}\n    await sleep(60)"))
    assert (ended.out, ended.status) == (REVERSED, 4 if "status" in how else 0)
    assert not strange_lines(ended)


RUN = """
@guard(run={loop!r})
async def main(word, *, times):
    current_guard().callback(bye)
    ready()
    {body}
    return word * times
say(main("ho", times=2))
"""


@every_loop
def test_guard_runs_the_loop_when_asked(loop: str) -> None:
    """`@guard(run=...)` makes a plain function of `async def main`: arguments go in, what it returns comes out."""
    assert perform(loop, RUN.format(loop=loop, body="")).out == ["bye", "hoho"]


@every_loop
@pytest.mark.parametrize(("signum", "status"), STATUSES)
def test_guard_runs_the_loop_and_a_stop_ends_it(loop: str, signum: int, status: int) -> None:
    """The same statuses."""
    ended = perform(loop, RUN.format(loop=loop, body="await sleep(60)"), signum)
    assert (ended.out, ended.status) == (["bye"], status)
    assert not strange_lines(ended)


RUNNERS = {
    "Runner": "with asyncio.Runner() as runner: runner.run(main())",
    "debug": """
async def slowly():  # on a loaded machine every step of a task is a slow one, which debug mode tells
    asyncio.get_running_loop().slow_callback_duration = 60
    await main()
asyncio.run(slowly(), debug=True)
""",
    "run_until_complete": """
loop = asyncio.new_event_loop()
try: loop.run_until_complete(main())
finally: loop.close()
""",
}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(("signum", "status"), STATUSES)
def test_whoever_runs_the_loop(runner: str, signum: int, status: int) -> None:
    """`asyncio.Runner`, a loop of one's own, debug mode."""
    ended = perform("asyncio", program(WAITING).replace("run_main(main)", RUNNERS[runner]), signum)
    assert (ended.out, ended.status) == (["finally", *REVERSED], status)
    assert not strange_lines(ended)


@every_asyncio
def test_a_sync_guard_around_the_loop(loop: str) -> None:
    """One stop for both: the task is cancelled, its callbacks run, then those of the guard around the loop."""
    code = """
@guard
async def inner():
    current_guard().callback(bye, "inner")
    ready()
    await sleep(60)

@guard
def main():
    current_guard().callback(say, "outer")
    run_main(inner)
main()
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["inner", "outer"], 143)
    assert not strange_lines(ended)


@every_loop
def test_async_generators_are_closed_before_their_callbacks_run(loop: str) -> None:
    """A decorated async generator: values go in and out, and a stop closes it in order."""
    code = """
@guard
async def echo():
    current_guard().callback(bye)
    got = "nothing"
    try:
        while True:
            try:
                got = yield got
            except LookupError as error:
                got = error
    finally:
        say("closed")

async def main():
    each = echo()
    say(await each.asend(None), await each.asend(1), await each.athrow(LookupError("thrown")))
    await each.aclose()
    each = echo()
    ready()
run_main(main)
"""
    before = "nothing 1 thrown"
    with stage(loop, code) as started:
        ended = started.end()
        assert (started.out, ended.status) == ([before, "closed", "bye", "ready"], 0)


@every_loop
def test_a_stop_inside_an_async_generator(loop: str) -> None:
    """It is cancelled where it waits, and its callbacks run."""
    code = """
@guard
async def numbers():
    current_guard().callback(bye)
    try:
        yield 1
        ready()
        await sleep(60)
    finally:
        say("closed")

async def main():
    async for _ in numbers():
        pass
run_main(main)
"""
    ended = perform(loop, code, TERM)
    assert (ended.out, ended.status) == (["closed", "bye"], 143)
    assert not strange_lines(ended)

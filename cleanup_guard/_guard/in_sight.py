"""The stop, as main and its threads see it: what a guard says of it, how to wait for it, ask for it and hold it back."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta

    from cleanup_guard._ground.once import Waiters
    from cleanup_guard._guard.stay import Stay
    from cleanup_guard._guard.work import Work
    from cleanup_guard._stop.stack import CallbackStack
    from cleanup_guard._stop.stop import Stop


class StopInSight:
    """What a guard says of the stop. Every method may be called from any thread."""

    _stay: Stay | None = None
    _stack: CallbackStack
    _waiters: Waiters

    @property
    def state(self) -> str:
        """A word for a log line: "new", "running", "draining", "leaving", "stopping", "unwinding", "cleaning up" or "done"."""
        if self._stack.closed:
            return "done"
        if self._stay is None:
            return "new"
        stop, state = self._stay.process.stop, self._stay.process.state.value
        return "draining" if state == "stopping" and stop is not None and not stop.drained else state

    @property
    def _stop(self) -> Stop | None:
        stay = self._stay
        return None if stay is None else stay.process.stop

    @property
    def stopping(self) -> bool:
        """Whether a stop has arrived (and its drain is over), or this guard has begun its cleanup. Any thread; costs little."""
        stay = self._stay
        if stay is None:
            return False
        stop = stay.process.stop
        return stay.left or (stop is not None and stop.drained)

    def ready(self) -> None:
        """Say that the program takes work from now on. It is not ready any more as soon as a stop has come, or main leaves.

        Probes see it: `is_ready`, the file `ready_file`, `cleanup_guard.probes`. Said again it changes nothing.

        Raises:
            RuntimeError: the guard is not entered.
            OSError: the file cannot be written.
        """
        stay = self._stay
        if stay is None:
            raise RuntimeError(f"a program is ready inside its guard: {self!r} is not entered")
        if not self.stopping:
            stay.process.roster.declare(stay.options.ready_file)
        if stay.left or stay.process.stop is not None:  # it has come meanwhile
            stay.process.roster.withdraw(waits=True)

    @property
    def is_ready(self) -> bool:
        """Whether `ready` was said, and neither a stop has come nor this guard is being left."""
        stay = self._stay
        if stay is None or stay.left or stay.process.stop is not None:
            return False
        readiness = stay.process.roster.readiness
        return readiness is not None and readiness.ready

    @property
    def reason(self) -> str | None:
        """What stopped the process: the signal's name or what `request_stop` was told; None as long as nothing has."""
        stop = self._stop
        return None if stop is None else stop.reason

    def wait(self, timeout: float | timedelta | None = None) -> bool:
        """Wait for the stop, or for the guard to begin its cleanup. Any thread; all waiters wake at once.

        Args:
            timeout: seconds; None waits without limit.

        Returns:
            Whether it came.
        """
        from cleanup_guard._ground.clock import seconds

        limit = seconds(timeout, "timeout")
        return self.stopping or self._waiters.wait(limit) or self.stopping

    def sleep(self, duration: float | timedelta) -> bool:
        """Sleep, but no longer than until a stop. Any thread.

        Args:
            duration: seconds.

        Returns:
            True if it slept to the end, False if there is a stop: `while g.sleep(5): work()`.
        """
        return not self.wait(duration)

    async def stopped(self, timeout: float | timedelta | None = None) -> bool:  # noqa: ASYNC109  # as `wait` has it
        """`wait` for coroutines: `while not await g.stopped(timeout=5): work()`. On any event loop, in any thread.

        Args:
            timeout: seconds; None waits without limit.

        Returns:
            Whether the stop, or the guard's cleanup, came.
        """
        from cleanup_guard._ground.clock import seconds
        from cleanup_guard._hosts.loops import backend

        if self.stopping:
            return True
        came = await backend().wait_for_stop(self._waiters, seconds(timeout, "timeout"))
        return came or self.stopping

    def remaining(self) -> float | None:
        """Seconds left of the grace period for callbacks, the safety margin already taken off. Any thread.

        Returns:
            None where there is no limit: no stop has arrived, or `grace=None`. Never negative.
        """
        stay, stop = self._stay, self._stop
        return None if stay is None or stop is None else stay.remaining(stop)

    def request_stop(self, reason: str = "stop requested", *, status: int = 0) -> bool:
        """Stop the process as a signal would, without one: on_stop, unwinding, callbacks, inside the grace period. Any thread.

        Args:
            reason: said in the report, and by `SignalExit`.
            status: the exit status of the process.

        Returns:
            Whether this call began the stop; False if one was under way.

        Raises:
            RuntimeError: the guard is not entered.
        """
        stay = self._stay
        if stay is None or stay.gone:
            raise RuntimeError(f"request_stop({reason!r}) has no process to stop: {self!r} is not entered")
        return stay.request_stop(reason, status)

    def shield(self) -> Shield:
        """A critical section, for `with` and `async with`: a stop that arrives inside is delivered when the outermost one ends.

        Only main is ever interrupted, so in another thread it does nothing. When nine tenths of the grace period have passed
        the stop is delivered all the same.

        In a task use `async with`: once a stop has come, no task begins a section that would hold it back further, but
        waits at the entry until it is cancelled.
        """
        return Shield(self._stay)

    def work(self, name: str | None = None) -> Work:
        """A request or job in flight, for `with` and `async with`, in any thread or task: a stop waits for what has begun.

        In main, or in a task, it is a critical section (see `shield`). While one that began before the stop is in flight in
        another thread, main is not stopped either. The callbacks of this guard run when all are over that have begun by then,
        after a normal exit, too. When nine tenths of the grace period have passed nobody waits any longer, and `WorkCut` says
        which were in flight, and for how long they ran; a second Ctrl-C ends the wait for other threads.

        Args:
            name: what reports call it; by default they name the thread.

        Raises:
            RuntimeError: the guard is not entered.
        """
        stay = self._stay
        if stay is None:
            raise RuntimeError(f"work has begun before its guard was entered: {self!r}")
        from cleanup_guard._guard.work import Work

        return Work(stay.process, stay.stack, name)


class Shield:
    """See `Guard.shield`. May be nested and reused, not shared between threads or tasks."""

    def __init__(self, stay: Stay | None) -> None:
        # Only main is ever interrupted.
        here = threading.current_thread() is threading.main_thread()
        self._process = stay.process if stay is not None and here else None
        self._held: list[object] = []

    def __enter__(self) -> None:
        if self._process is not None:
            self._process.roster.shields += 1

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        process = self._process
        if process is not None:
            process.roster.shields -= 1
            process.deliver()

    async def __aenter__(self) -> None:
        from cleanup_guard._hosts.loops import backend

        if self._process is not None:
            self._held.append(await backend().enter_shield(self._process))

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from cleanup_guard._hosts.loops import backend

        process = self._process
        if process is not None and not process.foreign:
            await backend().leave_shield(process, self._held.pop(), failed=error is not None)

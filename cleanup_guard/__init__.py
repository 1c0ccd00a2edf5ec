"""Cleanup that happens: exactly once, in order, inside the grace period, whatever arrives.

Names are loaded on first use, so that `import cleanup_guard` costs next to nothing and changes nothing.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cleanup_guard._exec.exec_into import exec_into as exec_into
    from cleanup_guard._ground.errors import CleanupError as CleanupError
    from cleanup_guard._ground.errors import SignalExit as SignalExit
    from cleanup_guard._ground.events import CallbackDone as CallbackDone
    from cleanup_guard._ground.events import CallbackFailed as CallbackFailed
    from cleanup_guard._ground.events import CallbackRecord as CallbackRecord
    from cleanup_guard._ground.events import CallbackStarted as CallbackStarted
    from cleanup_guard._ground.events import CallbackTimedOut as CallbackTimedOut
    from cleanup_guard._ground.events import ClockStarted as ClockStarted
    from cleanup_guard._ground.events import DeadlineReached as DeadlineReached
    from cleanup_guard._ground.events import Draining as Draining
    from cleanup_guard._ground.events import Event as Event
    from cleanup_guard._ground.events import Finished as Finished
    from cleanup_guard._ground.events import HandlerReplaced as HandlerReplaced
    from cleanup_guard._ground.events import HeldToTheEnd as HeldToTheEnd
    from cleanup_guard._ground.events import HookLeftRunning as HookLeftRunning
    from cleanup_guard._ground.events import MainFailed as MainFailed
    from cleanup_guard._ground.events import SignalsUnheard as SignalsUnheard
    from cleanup_guard._ground.events import SteppedIn as SteppedIn
    from cleanup_guard._ground.events import StillRunning as StillRunning
    from cleanup_guard._ground.events import StopReceived as StopReceived
    from cleanup_guard._ground.events import StopRecord as StopRecord
    from cleanup_guard._ground.events import StopRedelivered as StopRedelivered
    from cleanup_guard._ground.events import TasksLeft as TasksLeft
    from cleanup_guard._ground.events import TookOver as TookOver
    from cleanup_guard._ground.events import WorkAwaited as WorkAwaited
    from cleanup_guard._ground.events import WorkCut as WorkCut
    from cleanup_guard._guard.guard import Guard as Guard
    from cleanup_guard._guard.guard import guard as guard
    from cleanup_guard._guard.on_exit import current_guard as current_guard
    from cleanup_guard._guard.on_exit import on_exit as on_exit
    from cleanup_guard._guard.on_exit import unregister as unregister
    from cleanup_guard._process.report import log_event as log_event

    if sys.platform == "linux":
        from cleanup_guard._supervise._oneoff import run as run
        from cleanup_guard._supervise._supervisor import Child as Child
        from cleanup_guard._supervise._supervisor import Supervisor as Supervisor
    else:
        from cleanup_guard._supervise.elsewhere import Child as Child
        from cleanup_guard._supervise.elsewhere import Supervisor as Supervisor
        from cleanup_guard._supervise.elsewhere import run as run

__version__ = "0.1.0"

__all__ = [
    "CallbackDone",
    "CallbackFailed",
    "CallbackRecord",
    "CallbackStarted",
    "CallbackTimedOut",
    "Child",
    "CleanupError",
    "ClockStarted",
    "DeadlineReached",
    "Draining",
    "Event",
    "Finished",
    "Guard",
    "HandlerReplaced",
    "HeldToTheEnd",
    "HookLeftRunning",
    "MainFailed",
    "SignalExit",
    "SignalsUnheard",
    "SteppedIn",
    "StillRunning",
    "StopReceived",
    "StopRecord",
    "StopRedelivered",
    "Supervisor",
    "TasksLeft",
    "TookOver",
    "WorkAwaited",
    "WorkCut",
    "current_guard",
    "exec_into",
    "guard",
    "log_event",
    "on_exit",
    "run",
    "unregister",
]

_HOMES = {
    "_ground.errors": ("CleanupError", "SignalExit"),
    "_exec.exec_into": ("exec_into",),
    "_guard.guard": ("Guard", "guard"),
    "_guard.on_exit": ("current_guard", "on_exit", "unregister"),
    "_process.report": ("log_event",),
    "_supervise._oneoff": ("run",),
    "_supervise._supervisor": ("Child", "Supervisor"),
}
if sys.platform != "linux":
    _HOMES = {"_supervise.elsewhere": ("Child", "Supervisor", "run"), **_HOMES}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "_ground.events")
    value = getattr(__import__(f"{__name__}.{home}", fromlist=[name]), name)
    value.__module__ = __name__
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

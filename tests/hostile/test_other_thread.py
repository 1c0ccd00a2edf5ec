"""The kernel may hand a signal to any thread that does not block it; main then hears of it only if somebody tells it (H19)."""

from __future__ import annotations

import signal

import pytest
from support import run

WAITS = {
    "sleep": "time.sleep(60)",
    "lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "event": "threading.Event().wait()",
    "queue": "import queue; queue.Queue().get()",
    "select": "import select; select.select([], [], [], 60)",
    "read": "os.read(os.pipe()[0], 1)",
    "join": "thread.join()",
    "g.wait": "current_guard().wait(60); time.sleep(60)",
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_main_notices_a_signal_that_another_thread_received(wait: str, signum: signal.Signals) -> None:
    """A stop that the kernel gave to a worker thread ends main's blocking call at once, not when that call is over."""
    ended = run(
        f"""
def work():
    while True: time.sleep(0.2)
thread = threading.Thread(target=work, daemon=True)
def hand_over():
    limit = time.monotonic() + 30
    while not os.path.exists(__file__ + ".go") and time.monotonic() < limit: time.sleep(0.01)
    signal.pthread_kill(thread.ident, {int(signum)})
@guard(grace=30)
def main():
    on_exit(lambda: print("in main", threading.current_thread() is threading.main_thread()))
    thread.start()
    threading.Thread(target=hand_over, daemon=True).start()
    ready()
    open(__file__ + ".go", "w").close()
    {wait}
main()
"""
    )
    assert (ended.out, ended.status) == (
        ["in main True"],
        143 if signum == signal.SIGTERM else -signal.SIGINT,
    )
    assert ended.seconds < 15

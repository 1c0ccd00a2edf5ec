"""Rehearsals that never took place: three that are typical, and whatever hypothesis thinks of."""

from __future__ import annotations

from typing import get_args

from hypothesis import strategies as st

from cleanup_guard._rehearse._seen import Advice, Handling, Heard, How, Isolation, Rehearsal, Seen

HOSTILE = [
    "\x1b[2J",
    "\x1b]0;x\x07",
    "\r\n",
    "\x00",
    "\x9b31m",
    "\u202e",
    "\ud800",
    "</text><script/>",
    "名前",
    "e\u0301" * 9,
    "\ufffe",
]
"""What a command line may hold."""


def clean() -> Rehearsal:
    """Three that cleaned up."""
    return Rehearsal(
        ["/usr/bin/python3", "/app/main.py"],
        None,
        "SIGTERM",
        10.0,
        "pid-namespace",
        readied=0.6,
        seconds=1.2,
        status=0,
        clean=True,
        verdict="clean: all 3 processes ended within 1.2 s of 10 s; exit status 0",
        processes=[
            Seen(
                1,
                0,
                ["/usr/bin/python3", "/app/main.py"],
                "catches",
                -0.6,
                1.2,
                heard=[Heard(0.0, "SIGTERM", None)],
            ),
            Seen(
                8,
                1,
                ["/usr/bin/python3", "/app/worker.py"],
                "catches",
                -0.4,
                0.6,
                heard=[Heard(0.1, "SIGTERM", 1)],
            ),
            Seen(9, 1, ["nginx: master process"], "catches", -0.4, 0.3, heard=[Heard(0.1, "SIGQUIT", 1)]),
        ],
    )


def killed() -> Rehearsal:
    """A shell that does not forward, and what it did not forward to."""
    return Rehearsal(
        ["./entry.sh"],
        None,
        "SIGTERM",
        10.0,
        "pid-namespace",
        seconds=10.1,
        status=137,
        verdict="not clean: 2 of 2 processes were killed; exit status 137",
        processes=[
            Seen(1, 0, ["/bin/sh", "./entry.sh"], "default", -0.6, 10.0, "killed", 9, [Heard(0.0, "SIGTERM", None)]),
            Seen(7, 1, ["python3", "/app/main.py"], "catches", -0.5, 10.1, "killed", 9),
        ],
        advice=[
            Advice("shell-does-not-forward", "`sh` (PID 1) does not forward SIGTERM.", "exec python3 /app/main.py", fault=True),
            Advice("close", "It was close.", "", fault=False),
        ],
    )  # fmt: skip


def torn_down() -> Rehearsal:
    """PID 1 leaves at once, of its two children one ends by a signal and one is killed by the kernel."""
    found = clean()
    found.clean = False
    found.processes[1].how, found.processes[1].status = "torn-down", 9
    found.processes[2].how, found.processes[2].status = "signal", 15
    return found


def many(count: int) -> Rehearsal:
    """PID 1 and so many children that are alike, but for when they ended."""
    found = clean()
    found.processes[1:] = [
        Seen(2 + each, 1, ["worker"], "catches", ended=each / count) for each in range(count)
    ]
    return found


moments = st.sampled_from([-1.0, 0.0, 1e-5, 1e-3, 0.1, 9.99, 10.0, 3600.0]) | st.floats(-10, 1e5)
words = st.text(max_size=30) | st.sampled_from([*HOSTILE, "/usr/bin/python3", "-c", "W" * 300])
heard = st.builds(
    Heard, moments, st.sampled_from(["SIGTERM", "SIGINT", "SIGRTMIN+3"]), st.none() | st.integers(1, 99999)
)
seen = st.builds(
    Seen,
    pid=st.integers(1, 4194304) | st.integers(1, 9),
    parent=st.integers(0, 9),
    argv=st.lists(words, max_size=5),
    handling=st.sampled_from(get_args(Handling)),
    born=moments,
    ended=moments,
    how=st.sampled_from(get_args(How)),
    status=st.integers(0, 255),
    heard=st.lists(heard, max_size=5),
)
advice = st.builds(Advice, words, words, words, fault=st.booleans())
rehearsals = st.builds(
    Rehearsal,
    program=st.lists(words, max_size=4),
    image=st.none() | words,
    signal=st.sampled_from(["SIGTERM", "SIGQUIT", "SIGRTMIN+3"]),
    grace=st.sampled_from([0.1, 10.0, 3600.0, 1e7]),
    isolation=st.sampled_from(get_args(Isolation)),
    remark=st.just("") | words,
    readied=moments,
    processes=st.lists(seen, max_size=8) | st.lists(seen, min_size=20, max_size=45),
    clean=st.booleans(),
    verdict=words,
    advice=st.lists(advice, max_size=2),
)

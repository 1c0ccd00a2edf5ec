"""Training that is stopped and resumed: one checkpoint, whole or not at all. Use it where a job is preempted.

    python examples/training/train.py checkpoint.json 100

Slurm sends SIGUSR1 before it ends a job (`sbatch --signal=B:USR1@60`), a spot instance's agent sends
SIGTERM: both are a stop here. A step is never cut, because main looks for the stop between two of them.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from cleanup_guard import guard

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def load(path: Path) -> dict[str, float]:
    return json.loads(path.read_text()) if path.exists() else {"step": 0, "loss": 1.0}


def save(path: Path, state: dict[str, float]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    print(f"saved at step {state['step']}", flush=True)


def train(state: dict[str, float]) -> None:
    time.sleep(0.05)  # the work
    state["step"] += 1
    state["loss"] *= 0.9


def main(path: Path, steps: int) -> None:
    with guard(grace=60, signals=STOPS, interrupt=False) as g:
        state = load(path)
        g.callback(save, path, state)  # once, at the end, however it comes
        print(f"ready at step {state['step']}", flush=True)
        while state["step"] < steps and not g.stopping:
            train(state)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

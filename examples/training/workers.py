"""Training that goes on where it was stopped: worker processes load, tqdm shows, a stop saves. Needs `pip install tqdm`.

    python examples/training/workers.py checkpoint.json 1000
    python examples/training/workers.py checkpoint.json 1000 http://169.254.169.254/latest/meta-data/spot/instance-action

SIGTERM, Ctrl-C, Slurm's SIGUSR1 and the notice at the address, if one is given, are one and the same stop.
"""

import json
import os
import signal
import sys
import time
from multiprocessing import Process, Queue
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

from tqdm import tqdm

from cleanup_guard import Guard, guard

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Training:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.step, self.loss = json.loads(path.read_text()) if path.exists() else (0, 0.0)

    def update(self, batch: list[float]) -> None:
        self.loss += sum(batch)
        time.sleep(0.05)  # half of a step is done
        self.step += 1
        tqdm.write(f"step {self.step}")
        sys.stdout.flush()

    def save(self) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps([self.step, self.loss]))
        os.replace(partial, self.path)  # the old one, or the new one
        print(f"saved {self.step}", flush=True)


def load(batches: "Queue[list[float]]") -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; main ends this one
    while True:
        batches.put([0.25] * 4)


def watch(url: str, g: Guard) -> None:
    while not g.wait(1):
        try:
            urlopen(url, timeout=1).close()  # noqa: S310 - yours
        except OSError:
            continue  # 404: no notice yet
        g.request_stop("the machine will be taken away")


def main(path: str, steps: int, notice: str = "") -> None:
    with guard(grace=30, signals=STOPS) as g:
        training = Training(Path(path))
        print(f"begins at {training.step}", flush=True)
        g.callback(training.save)
        batches: Queue[list[float]] = Queue(8)
        for _ in range(2):
            loader = Process(target=load, args=(batches,))
            with g.shield():
                loader.start()
                g.callback(loader.join)
                g.callback(loader.terminate)
        if notice:
            Thread(target=watch, args=(notice, g), daemon=True).start()
        for _ in tqdm(range(training.step, steps), initial=training.step, total=steps):
            batch = batches.get()
            with g.shield():
                training.update(batch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

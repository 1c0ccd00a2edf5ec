"""Worker threads that end with main. Use it when threads wait for something: `g.wait` wakes all of them."""

import threading
import time

from cleanup_guard import Guard, guard


def worker(number: int, g: Guard) -> None:
    while not g.wait(0.1):
        pass  # the work
    print(f"worker {number} is leaving", flush=True)


def main() -> None:
    with guard(grace=10) as g:
        for number in range(3):
            thread = threading.Thread(target=worker, args=(number, g))
            thread.start()
            g.callback(thread.join)
        print("ready", flush=True)
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main()

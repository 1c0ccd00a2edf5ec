"""Three pools that close at once. Use it when callbacks that wait for others add up to more than the grace period.

What was registered before the pools is called when the last of them is closed.
"""

import time

from cleanup_guard import guard


def close(name: str) -> None:
    time.sleep(1)  # it drains its connections
    print(f"closed pool {name}\n", end="", flush=True)


def main() -> None:
    with guard(grace=10) as g:
        g.callback(print, "said goodbye", flush=True)
        pools = g.options(parallel="pools", timeout=5)
        for name in "abc":
            pools.callback(close, name)
        print("ready", flush=True)
        time.sleep(3600)


if __name__ == "__main__":
    main()

"""The smallest program. Use it when one function is the whole program and it owes one goodbye."""

import time

from cleanup_guard import guard, on_exit


@guard
def main() -> None:
    on_exit(print, "goodbye", flush=True)
    print("ready: press Ctrl-C, or send SIGTERM", flush=True)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()

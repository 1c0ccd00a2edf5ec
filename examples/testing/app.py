"""A program for the tests beside it."""

import time

from cleanup_guard import guard, on_exit


@guard
def main() -> None:
    on_exit(print, "database closed")
    print("started", flush=True)
    while True:
        time.sleep(0.1)


if __name__ == "__main__":
    main()

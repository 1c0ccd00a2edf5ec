"""The classic container program. Use it as the program of an image: it cleans up whatever stops it.

CLEANUP_SECONDS makes the cleanup take that long, WORK_SECONDS ends the work by itself.
"""

import os
import time

from cleanup_guard import guard, on_exit


def clean_up() -> None:
    time.sleep(float(os.environ.get("CLEANUP_SECONDS", "0")))
    print("!!!Clean up!!!", flush=True)


@guard(grace=10)
def main() -> None:
    on_exit(clean_up)
    print("!!!Set up!!!", flush=True)
    time.sleep(float(os.environ.get("WORK_SECONDS", "3600")))


if __name__ == "__main__":
    main()

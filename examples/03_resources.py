"""Several resources, given back in reverse order. Use it when main opens things one after another.

`enter_context` leaves no gap between opening and registering: a stop waits until both are done.
"""

import tempfile
import time
from pathlib import Path

from cleanup_guard import guard


def flush(lines: list[str], path: Path) -> None:
    path.write_text("\n".join(lines))
    print(f"flushed {len(lines)} lines", flush=True)


def main() -> None:
    with guard(grace=10) as g:
        folder = Path(g.enter_context(tempfile.TemporaryDirectory()))
        lines: list[str] = []
        g.options(timeout=3, name="flush").callback(flush, lines, folder / "journal")
        print("ready", flush=True)
        while True:
            lines.append("work")
            time.sleep(0.1)


if __name__ == "__main__":
    main()

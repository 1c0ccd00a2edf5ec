"""Prepare in Python, then become the program. Use it as an entrypoint that must compute something first."""

import os
import sys
import tempfile

from cleanup_guard import exec_into, guard

PROGRAM = "import os; print('the program has the same PID:', os.environ['PARENT'] == str(os.getpid()))"


def main() -> None:
    with guard() as g:
        folder = g.enter_context(tempfile.TemporaryDirectory())
        print("prepared in a folder that is gone before the program starts:", os.path.isdir(folder))
        exec_into(sys.executable, "-c", PROGRAM, env={**os.environ, "PARENT": str(os.getpid())})


if __name__ == "__main__":
    main()

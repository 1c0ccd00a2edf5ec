#!/usr/bin/python3
"""A worker with a name that writes its last result when it is told to stop, or that does not listen ("deaf")."""

import signal
import sys
import time
from pathlib import Path

name = sys.argv[1]


def stop(_signum, _frame):
    sys.exit(0)


signal.signal(signal.SIGTERM, signal.SIG_IGN if name == "deaf" else stop)
try:
    print(f"!!!Set up!!! {name}", flush=True)
    while True:
        time.sleep(3600)
finally:
    time.sleep(1)
    Path("/scratch", name).write_text("result")
    print(f"!!!Clean up!!! {name}", flush=True)

#!/usr/bin/python3
"""A program that does clean up when it is told to, and takes three seconds for it."""

import os
import signal
import sys
import time

NAME = os.environ.get("NAME", "")


def stop(signum, _frame):
    sys.exit(128 + signum)


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
try:
    print(f"!!!Set up!!!{NAME}", flush=True)
    while True:
        time.sleep(3600)
finally:
    time.sleep(float(os.environ.get("CLEANUP", "3")))
    print(f"!!!Clean up!!!{NAME}", flush=True)

"""What `make demo` shows: a program stopped without a guard, then with one, and `docker stop` rehearsed on entry scripts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

WITHOUT = """
import atexit, time
atexit.register(print, "!!!Clean up!!!", flush=True)
print("!!!Set up!!!", flush=True)
try:
    time.sleep(3600)
finally:
    print("finally", flush=True)
"""


def show(title: str, command: list[str], signum: int, **env: str) -> None:
    print(f"\n$ {title}", flush=True)
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts a background job with SIGINT ignored, and the guard would respect that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    print("  " + process.stdout.readline(), end="", flush=True)
    print(f"  <- {signal.Signals(signum).name}", flush=True)
    began = time.monotonic()
    process.send_signal(signum)
    for line in process.stdout:
        print("  " + line, end="", flush=True)
    status = process.wait()
    ended = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
    print(f"  {ended}, after {time.monotonic() - began:.1f} s", flush=True)


def rehearse(script: str) -> None:
    print(f"\n$ cleanup-guard check --grace 3 --ready '!!!Set up!!!' -- examples/check/{script}", flush=True)
    words = ["--grace", "3", "--ready", "!!!Set up!!!", "--", str(HERE / "check" / script)]
    subprocess.run(
        [sys.executable, "-m", "cleanup_guard", "check", *words],
        env={**os.environ, "PYTHON": sys.executable},
        check=False,  # that one of them is not clean is what is shown
    )


def main() -> None:
    guarded = [sys.executable, str(HERE / "02_main_process.py")]
    show(
        "a program with atexit and finally, without a guard", [sys.executable, "-c", WITHOUT], signal.SIGTERM
    )
    show("python examples/02_main_process.py", guarded, signal.SIGTERM)
    show("the same, with Ctrl-C", guarded, signal.SIGINT)
    show(
        "the same, with a cleanup that hangs, and 2 s of grace",
        guarded,
        signal.SIGTERM,
        CLEANUP_SECONDS="60",
        CLEANUP_GUARD_GRACE="2",
    )
    if sys.platform == "linux":
        rehearse("entry.sh")
        rehearse("entry_fixed.sh")


if __name__ == "__main__":
    main()

"""What a program of ours must leave as it found it: text for the children that tests start."""

BELONGINGS = """
import ctypes  # a watcher in need imports it at some moment, and newer libffi keeps a descriptor
def belongings():
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    return handlers, sorted(os.listdir("/dev/fd")), [each.name for each in threading.enumerate()]
def is_back(before):  # the thread that tells hooks what happened ends by itself, a moment later
    limit = time.monotonic() + 20
    while belongings() != before and time.monotonic() < limit: time.sleep(0.01)
    now = belongings()
    return now == before or f"{before} became {now}"
BEFORE = belongings()
"""

"""A notebook's client: runs cells in a kernel, interrupts it, and prints the fate of each cell as a line."""

import sys
import time

import guest
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(startup_timeout=60)


def fate(what, request):
    """Print how a cell ended."""
    reply = client.get_shell_msg(timeout=60)
    while reply["parent_header"]["msg_id"] != request:
        reply = client.get_shell_msg(timeout=60)
    print(what, reply["content"]["status"], reply["content"].get("ename", ""), flush=True)


def run(cell):
    """Run a cell; one that notes its own name is interrupted as soon as it has."""
    what = cell.split()[0].removeprefix("#")
    # Otherwise a kernel that has not yet dealt with the end of the cell before drops this one.
    request = client.execute(cell, stop_on_error=False)
    if f'guest.note("{what}")' in cell:
        while what not in guest.facts():
            time.sleep(0.02)
        manager.interrupt_kernel()
    fate(what, request)


try:
    for cell in sys.stdin.read().split("\n---\n"):
        run(cell)
finally:
    client.stop_channels()
    manager.shutdown_kernel()
    print("kernel ended", flush=True)

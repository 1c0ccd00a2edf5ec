"""Programs that stop well, and programs that stop badly, each with what a rehearsal must say about it.

Each is started in a folder with its files, and does as real programs do: scripts are executed by their first line, Python
programs are files. What is expected is all that matters of a rehearsal: verdict, how each process ended, advice by its codes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GRACE = "3"
"""Seconds, for programs that are killed."""

PATIENT = "30"
"""Seconds, for programs that are not."""


POSTGRES_FOLDERS = [str(each) for each in Path("/usr/lib/postgresql").glob("*/bin")]
"""Where Debian has its programs: not on PATH."""


@dataclass(frozen=True)
class Exhibit:
    """A program in a gallery.

    Attributes:
        name: what is special about it.
        program: what is rehearsed.
        files: the files in its folder; {APP} and the like have been filled in.
        ends: how each process ended, in the order of the rehearsal; see `described`. A sleep that is over is not worth a word.
        advice: the codes of all advice that it gets, faults first. None of them: there is nothing to say.
        clean: the verdict.
        status: what the platform would show.
        ready: the text to wait for; empty for the default.
        options: more options of `check`.
        cures: the codes whose fixed line makes the rehearsal clean, when it is applied.
        needs: a program that may not be installed here.
        simulated: whether the same must be seen where no PID namespace is to be had.
        perhaps: the codes of advice that it may get or not, for it depends on who is faster.
        only_first: how many of the processes are looked at, where it depends on the release how many there are; None: all.
    """

    name: str
    program: list[str]
    files: Mapping[str, str]
    ends: str
    advice: list[str] = field(default_factory=list[str])
    clean: bool = False
    status: int = 137
    ready: str = "ready"
    options: list[str] = field(default_factory=list[str])
    cures: list[str] = field(default_factory=list[str])
    needs: str = "sh"
    simulated: bool = False
    perhaps: set[str] = field(default_factory=set[str])
    only_first: int | None = None

    @property
    def words(self) -> list[str]:
        """The command line after `cleanup-guard check`."""
        grace = [] if "--grace" in self.options else ["--grace", GRACE if " killed" in self.ends else PATIENT]
        ready = ["--ready", self.ready] if self.ready else []
        return [*grace, *ready, *self.options, "--", *self.program]

    @property
    def missing(self) -> bool:
        """Whether the program that it needs is not installed here."""
        folders = [os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent), *POSTGRES_FOLDERS]
        return shutil.which(self.needs, path=os.pathsep.join(folders)) is None


def app(body: str = "", *, seconds: float = 0, status: int = 0, cleanup: str = "") -> str:
    """A Python program that cleans up when it is told to stop, after this many seconds, and with this status."""
    return f"""\
import os, signal, sys, time
def stop(signum, frame):
    time.sleep({seconds})
    {cleanup or 'os.write(1, b"cleaned up{}"'.format(chr(92) + "n") + ")"}
    sys.exit({status})
signal.signal(signal.SIGTERM, stop)
{body}
os.write(1, b"ready\\n")
while True:
    time.sleep(0.1)
"""


def deaf(body: str = "") -> str:
    """A Python program that has a main(), and does nothing about signals."""
    return f"""\
import os, signal, subprocess, sys, threading, time
def main():
    {body or "pass"}
    os.write(1, b"ready\\n")
    while True:
        time.sleep(0.1)
main()
"""


PYTHON = "python -I -S app.py"
"""How scripts start the program: quickly."""

RUNS = ["python", "-I", "-S", "app.py"]


def script(*lines: str, shell: str = "sh") -> dict[str, str]:
    """An entry script, and a program that cleans up."""
    return {"entry.sh": "\n".join([f"#!/usr/bin/env {shell}", *lines, ""]), "app.py": app()}


def in_front(shell: str, command: list[str] | None = None) -> Exhibit:
    """The classic: this shell is PID 1, and the program its foreground child."""
    files = script(PYTHON, "echo over", shell=" ".join(["-S", *command]) if command else shell)
    return Exhibit(
        f"{shell} in front",
        ["./entry.sh"],
        files,
        f"{command[0] if command else shell} killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
        needs=shell,
        simulated=shell == "sh",
    )


SHELLS = [
    in_front("sh"),
    in_front("dash"),
    in_front("bash"),
    in_front("zsh"),
    in_front("ksh93"),
    in_front("busybox", ["busybox", "sh"]),
    Exhibit(
        "sh execs",
        ["./entry.sh"],
        script("echo prepared", f"exec {PYTHON}"),
        "python exited 0",
        clean=True,
        status=0,
        simulated=True,
    ),
    Exhibit(
        "sh traps, forwards and waits",
        ["./entry.sh"],
        script(
            "trap 'kill -TERM $child' TERM",
            f"{PYTHON} &",
            "child=$!",
            "wait $child",
            "trap - TERM",
            "wait $child",
        ),
        "sh exited 0, python exited 0",
        clean=True,
        status=0,
        simulated=True,
    ),
    Exhibit(
        "sh traps, but is in wait for the foreground",
        ["./entry.sh"],
        script("trap 'echo bye; exit 0' TERM", PYTHON),
        "sh killed, python killed",
        ["shell-waits"],
        cures=["shell-waits"],
        simulated=True,
    ),
    Exhibit(
        "bash traps, but is in wait for the foreground",
        ["./entry.sh"],
        script("trap 'echo bye; exit 0' TERM", PYTHON, shell="bash"),
        "bash killed, python killed",
        ["shell-waits"],
        cures=["shell-waits"],
        needs="bash",
    ),
    Exhibit(
        "sh traps and leaves without a word",
        ["./entry.sh"],
        script("trap 'exit 0' TERM", f"{PYTHON} &", "wait"),
        "sh exited 0, python torn-down",
        ["children-killed"],
        status=0,
        cures=["children-killed"],
        simulated=True,
    ),
    Exhibit(
        "sh traps, tells, and does not wait",
        ["./entry.sh"],
        {
            **script("trap 'kill $child; exit 0' TERM", f"{PYTHON} &", "child=$!", "wait"),
            "app.py": app(seconds=0.5),
        },
        "sh exited 0, python torn-down",
        ["children-killed"],
        status=0,
        cures=["children-killed"],
        simulated=True,
    ),
    Exhibit(
        "sh waits for a background child",
        ["./entry.sh"],
        script(f"{PYTHON} &", "wait"),
        "sh killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
    ),
    Exhibit(
        "sh waits for two background children",
        ["./entry.sh"],
        script(f"{PYTHON} >/dev/null &", f"{PYTHON} &", "wait"),
        "sh killed, python killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
        ready="",
    ),
    Exhibit(
        "sh -c forks for one command",
        ["sh", "-c", f"{PYTHON}; true"],
        {"app.py": app()},
        "sh killed, python killed",
        ["shell-does-not-forward"],
    ),
    Exhibit(
        "a pipeline in front",
        ["./entry.sh"],
        script(f"{PYTHON} | cat"),
        "sh killed, python killed, cat killed",
        ["shell-does-not-forward"],
        ready="ready",
    ),
    Exhibit(
        "the reader of a pipeline goes first",
        ["./entry.sh"],
        {
            **script(
                "python -I -S writer.py | cat &",
                "trap 'trap \"\" TERM; kill -TERM 0; wait; exit 0' TERM",
                "wait",
            ),
            "writer.py": app(
                "signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
                seconds=0.3,
                cleanup="os.write(1, b'bye'); time.sleep(0.1); os.write(1, b'bye')",
            ),
        },
        "sh exited 0, python by SIGPIPE, cat by SIGTERM",
        ["sigpipe"],
        status=0,
        options=["--grace", PATIENT],
        cures=["sigpipe"],
    ),
    Exhibit(
        "a subshell in front",
        ["./entry.sh"],
        script(f"({PYTHON}; echo over)", "echo over"),
        "sh killed, sh killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
    ),
    Exhibit(
        "a script in front of a script",
        ["./entry.sh"],
        {**script("./inner.sh", "echo over"), "inner.sh": f"#!/bin/sh\n{PYTHON}\necho over\n"},
        "sh killed, sh killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
    ),
    Exhibit(
        "sh tells everybody twice",
        ["./entry.sh"],
        {
            **script(
                "trap 'trap \"\" TERM; kill -TERM $child; sleep 0.3; kill -TERM $child; wait $child; exit 0' TERM",
                f"{PYTHON} &",
                "child=$!",
                "wait $child",
            ),
            "app.py": app(cleanup="signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(0.6)"),
        },
        "sh exited 0, python exited 0",
        ["told-twice"],
        clean=True,
        status=0,
    ),
    Exhibit(
        "an ignored signal is inherited",
        ["./entry.sh"],
        {
            **script("trap '' TERM", "exec ./inner.sh"),
            "inner.sh": "#!/bin/sh\ntrap 'exit 0' TERM\necho ready\nwhile :; do :; done\n",
        },
        "sh killed",
        ["ignored"],
        cures=["ignored"],
        simulated=True,
    ),
    Exhibit(
        "nohup keeps SIGHUP from it",
        ["nohup", "sleep", "1000"],
        {},
        "sleep killed",
        ["ignored"],
        ready="",
        options=["--signal", "HUP"],
    ),
]

PYTHONS = [
    Exhibit(
        "python that does nothing",
        RUNS,
        {"app.py": deaf()},
        "python killed",
        ["never-caught"],
        cures=["never-caught"],
        simulated=True,
    ),
    Exhibit(
        "python guarded",
        ["python", "app.py"],
        {"app.py": deaf().replace("def main", "from cleanup_guard import guard\n@guard\ndef main")},
        "python exited 143",
        ["exited-143"],
        clean=True,
        status=143,
        cures=["exited-143"],
        simulated=True,
    ),
    Exhibit(
        "python catches",
        RUNS,
        {"app.py": app()},
        "python exited 0",
        clean=True,
        status=0,
        simulated=True,
    ),
    Exhibit(
        "python waits for KeyboardInterrupt",
        RUNS,
        {"app.py": deaf()},
        "python exited 130",
        ["exited-130"],
        clean=True,
        status=130,
        options=["--signal", "INT"],
    ),
    Exhibit(
        "python ignores",
        RUNS,
        {"app.py": deaf("signal.signal(signal.SIGTERM, signal.SIG_IGN)")},
        "python killed",
        ["ignored"],
        simulated=True,
    ),
    Exhibit(
        "python blocks",
        RUNS,
        {"app.py": deaf("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])")},
        "python killed",
        ["blocked"],
        simulated=True,
    ),
    Exhibit(
        "python is too slow",
        RUNS,
        {"app.py": app(seconds=1.5)},
        "python killed",
        ["too-slow"],
        cures=["too-slow"],
        options=["--grace", "1"],
        simulated=True,
    ),
    Exhibit(
        "python is nearly too slow",
        RUNS,
        {"app.py": app(seconds=7)},
        "python exited 0",
        ["close"],
        clean=True,
        status=0,
        options=["--grace", "8"],
    ),
    Exhibit(
        "a cleanup that hangs",
        RUNS,
        {"app.py": app(cleanup="import threading; threading.Event().wait()")},
        "python killed",
        ["never-ends"],
        options=["--timeout", "10"],
    ),
    Exhibit(
        "a thread that keeps it alive",
        RUNS,
        {
            "app.py": app(
                "import threading\nthreading.Thread(target=threading.Event().wait).start()", seconds=0
            )
        },
        "python killed",
        ["never-ends"],
        options=["--timeout", "10"],
    ),
    Exhibit(
        "PID 1 cannot stop itself",
        RUNS,
        {"app.py": app("os.kill(os.getpid(), signal.SIGSTOP)")},
        "python exited 0",
        clean=True,
        status=0,
        simulated=True,
    ),
    Exhibit(
        "a child that is stopped",
        RUNS,
        {
            "app.py": app(
                """\
child = os.fork()
if not child:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(1)
os.waitpid(child, os.WUNTRACED)
""",
                cleanup="os.kill(child, signal.SIGTERM); os.waitpid(child, 0)",
            )
        },
        "python killed, python killed",
        ["stopped"],
    ),
    Exhibit(
        "exit status 1 after the stop",
        RUNS,
        {"app.py": app(cleanup="raise ValueError('no')")},
        "python exited 1",
        ["failed"],
        status=1,
    ),
    Exhibit(
        "abort in the cleanup",
        RUNS,
        {"app.py": app(cleanup="os.abort()")},
        "python by SIGSEGV",
        ["crashed"],
        status=139,
        simulated=True,
    ),
    Exhibit(
        "a segmentation fault in the cleanup",
        ["python", "-I", "app.py"],
        {"app.py": app(cleanup="import ctypes; ctypes.string_at(0)")},
        "python by SIGSEGV",
        ["crashed"],
        status=139,
        simulated=True,
    ),
    Exhibit(
        "python does not forward to its child",
        RUNS,
        {
            "app.py": app(
                "import subprocess; child = subprocess.Popen(['sleep', '1000'])", cleanup="child.wait()"
            )
        },
        "python killed, sleep killed",
        ["does-not-forward"],
        cures=["does-not-forward"],
        options=["--timeout", "10"],
    ),
    Exhibit(
        "python leaves its child behind",
        RUNS,
        {"app.py": app("import subprocess; child = subprocess.Popen(['sleep', '1000'])")},
        "python exited 0, sleep torn-down",
        ["children-killed"],
        status=0,
        cures=["children-killed"],
        simulated=True,
    ),
    Exhibit(
        "a daemon is left behind",
        RUNS,
        {
            "app.py": app(
                """\
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    os.execvp("sleep", ["sleep", "1000"])
os.wait()
"""
            )
        },
        "python exited 0, sleep torn-down",
        ["children-killed"],
        status=0,
        ready="",
        simulated=True,
        cures=["children-killed"],
    ),
    Exhibit(
        "a supervisor kills its child",
        RUNS,
        {
            "app.py": app(
                "import subprocess; child = subprocess.Popen(['sleep', '1000'])",
                cleanup="child.kill(); child.wait()",
            )
        },
        "python exited 0, sleep by SIGKILL",
        ["killed-by-its-own"],
        status=0,
    ),
    Exhibit(
        "python tells its child",
        RUNS,
        {
            "app.py": app(
                "import subprocess; child = subprocess.Popen(['sleep', '1000'])",
                cleanup="child.terminate(); child.wait()",
            )
        },
        "python exited 0, sleep by SIGTERM",
        clean=True,
        status=0,
    ),
    Exhibit(
        "a cleanup helper is started",
        RUNS,
        {"app.py": app(cleanup="import subprocess; subprocess.run(['sh', '-c', 'true; sync .'])")},
        "python exited 0, sh exited 0, sync exited 0",
        clean=True,
        status=0,
    ),
    Exhibit(
        "forks in a loop during the stop",
        RUNS,
        {
            "app.py": app(
                cleanup="""\
for turn in range(20):
        if os.fork() == 0:
            os._exit(turn % 2)
        os.wait()
"""
            )
        },
        "python exited 0, " + ", ".join(f"python exited {turn % 2}" for turn in range(20)),
        ["child-failed"],
        clean=True,
        status=0,
    ),
    Exhibit(
        "sigwait",
        RUNS,
        {
            "app.py": """\
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.write(1, b"ready\\n")
signal.sigwait([signal.SIGTERM])
sys.exit(0)
"""
        },
        "python exited 0",
        clean=True,
        status=0,
        ready="",
        simulated=True,
    ),
    Exhibit(
        "sigwait in a thread",
        RUNS,
        {
            "app.py": """\
import os, signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
done = threading.Event()
def wait():
    signal.sigwait([signal.SIGTERM])
    done.set()
threading.Thread(target=wait).start()
os.write(1, b"ready\\n")
done.wait()
"""
        },
        "python exited 0",
        clean=True,
        status=0,
        ready="",
        simulated=True,
    ),
    Exhibit(
        "signalfd",
        ["python", "-I", "app.py"],
        {
            "app.py": """\
import ctypes, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
mask = ctypes.c_uint64(1 << signal.SIGTERM - 1)
fd = ctypes.CDLL(None).signalfd(-1, ctypes.byref(mask), 0)
sys.stdout.write("ready\\n"); sys.stdout.flush()
os.read(fd, 128)
sys.exit(0)
"""
        },
        "python exited 0",
        clean=True,
        status=0,
        simulated=True,
    ),
    Exhibit(
        "asyncio",
        ["python", "-I", "app.py"],
        {
            "app.py": """\
import asyncio, signal
async def main():
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    print("ready", flush=True)
    await done.wait()
asyncio.run(main())
"""
        },
        "python exited 0",
        clean=True,
        status=0,
    ),
    Exhibit(
        "an exec from another thread",
        RUNS,
        {
            "app.py": """\
import os, sys, threading
def become():
    os.execvp("python", ["python", "-I", "-S", "next.py"])
threading.Thread(target=become).start()
threading.Event().wait()
""",
            "next.py": app(),
        },
        "python exited 0",
        clean=True,
        status=0,
        simulated=True,
    ),
    Exhibit(
        "processes are terminated",
        ["python", "-I", "app.py"],
        {
            "app.py": app(
                """\
import subprocess
sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"]
children = [subprocess.Popen(sleep) for _ in range(3)]
""",
                cleanup="""\
for child in children: child.terminate()
    for child in children: child.wait()
""",
            )
        },
        "python exited 0, python by SIGTERM, python by SIGTERM, python by SIGTERM",
        ["no-cleanup"],
        clean=True,
        status=0,
    ),
    Exhibit(
        "processes are left",
        ["python", "-I", "app.py"],
        {
            "app.py": app(
                """\
import multiprocessing
fork = multiprocessing.get_context("fork")
for _ in range(3): fork.Process(target=time.sleep, args=(1000,)).start()
""",
                cleanup="os._exit(0)",
            )
        },
        "python exited 0, python torn-down, python torn-down, python torn-down",
        ["children-killed"],
        status=0,
    ),
]

INITS = [
    Exhibit(
        f"{name} leaves with a shell",
        [name, "--", "./entry.sh"],
        {**script(f"{PYTHON} &", "wait"), "app.py": app(seconds=0.5)},
        f"{name} exited 143, sh by SIGTERM, python torn-down",
        advice,
        status=143,
        cures=["init-leaves-early"],
        needs=name,
        perhaps={"told-twice"},
    )
    for name, advice in (
        ("tini", ["init-leaves-early", "exited-143"]),
        ("dumb-init", ["init-leaves-early", "exited-143"]),
    )
] + [
    Exhibit(
        "tini and one program",
        ["tini", "--", *RUNS],
        {"app.py": app()},
        "tini exited 0, python exited 0",
        clean=True,
        status=0,
        needs="tini",
    ),
    Exhibit(
        "run looks after a shell",
        ["cleanup-guard", "run", "--", "./entry.sh"],
        {**script(PYTHON, "echo over"), "app.py": app(seconds=0.3)},
        "python exited 143, sh by SIGTERM, python exited 0",
        ["exited-143"],
        clean=True,
        status=143,
        cures=["exited-143"],
        simulated=True,
    ),
]

INNER = """\
#!/usr/bin/perl
$SIG{TERM} = sub { exit 0 };
$| = 1;
print "ready\\n";
sleep 1 while 1;
"""
"""A program that cleans up and can be read by everybody, which a Python in somebody's home cannot."""

WORKERS = """\
import os, signal, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
workers = []
for _ in range(2):
    worker = os.fork()
    if not worker:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(2.5)
        os._exit(0)
    workers.append(worker)
time.sleep(0.2)
os.write(1, b"ready\\n")
for worker in workers: os.waitpid(worker, 0)
"""

AGAIN = "signal.signal(signal.SIGTERM, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGTERM); "

LINES = [
    Exhibit(
        "the arguments of a script",
        ["./entry.sh", *RUNS],
        script("set -e", "echo prepared", '"$@"'),
        "sh killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
        simulated=True,
    ),
    Exhibit(
        "behind env and nice",
        ["./entry.sh"],
        script("echo prepared", f"env FOO=1 nice -n 5 {PYTHON}"),
        "sh killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
    ),
    Exhibit(
        "behind gosu",
        ["./entry.sh"],
        {**script("echo prepared", "gosu nobody ./inner.pl"), "inner.pl": INNER},
        "sh killed, perl killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
        needs="gosu",
    ),
    Exhibit(
        "a command before, in the command line",
        ["sh", "-c", f"echo prepared && {PYTHON}; exit $?"],
        {"app.py": app()},
        "sh killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
    ),
    Exhibit(
        "a command after",
        ["./entry.sh"],
        script(f"{PYTHON} && echo upload"),
        "sh killed, python killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
    ),
    Exhibit(
        "deaf, behind a shell",
        ["./entry.sh"],
        script("echo ready", "sleep 1000"),
        "sh killed, sleep killed",
        ["shell-does-not-forward"],
        cures=["shell-does-not-forward"],
        ready="",
    ),
    Exhibit(
        "a module that is not the user's",
        ["python", "-m", "http.server", "0"],
        {},
        "python killed",
        ["never-caught"],
        cures=["never-caught"],
        ready="",
    ),
    Exhibit(
        "it raises the signal again",
        RUNS,
        {"app.py": app(cleanup=f"{AGAIN}time.sleep(1000)")},
        "python killed",
        ["raises-it-again"],
        cures=["raises-it-again"],
        simulated=True,
    ),
    Exhibit(
        "it raises the signal again and falls back",
        RUNS,
        {"app.py": app(cleanup=f"{AGAIN}os._exit(2)")},
        "python exited 2",
        ["exited-2"],
        clean=True,
        status=2,
        simulated=True,
    ),
    Exhibit(
        "it waits for its workers",
        RUNS,
        {"app.py": WORKERS},
        "python killed, python killed, python killed",
        ["too-slow"],
        cures=["too-slow"],
        options=["--timeout", "20", "--grace", "1"],
    ),
    Exhibit(
        "its workers are told by another",
        ["cleanup-guard", "run", "--signal-to", "group", "--", *RUNS],
        {"app.py": WORKERS},
        "python exited 0, python exited 0, python by SIGTERM, python by SIGTERM",
        ["workers-told", "no-cleanup"],
        status=0,
        options=["--grace", PATIENT],
        cures=["workers-told"],
    ),
    Exhibit(
        "it hangs the first time",
        RUNS,
        {
            "app.py": app(
                cleanup="""\
if not os.path.exists("flag"):
        open("flag", "w").close()
        time.sleep(1000)
"""
            )
        },
        "python killed",
        ["sometimes-hangs"],
        options=["--timeout", "20", "--grace", "4"],
    ),
    Exhibit(
        "a guard that listens to something else",
        ["python", "app.py"],
        {"app.py": deaf().replace("def main", "from cleanup_guard import guard\n@guard\ndef main")},
        "python killed",
        ["never-caught"],
        options=["--signal", "QUIT", "--grace", "2"],
        cures=["never-caught"],
    ),
    Exhibit(
        "a main without a guard",
        ["python", "app.py"],
        {"app.py": deaf()},
        "python killed",
        ["never-caught"],
        cures=["never-caught"],
    ),
    Exhibit(
        "a guard that dies of the signal",
        ["cleanup-guard", "run", "--", "python", "app.py"],
        {
            "app.py": deaf().replace(
                "def main", "from cleanup_guard import guard\n@guard(exit_status='signal')\ndef main"
            )
        },
        "python exited 143, python by SIGTERM",
        ["exited-143"],
        clean=True,
        status=143,
    ),
    Exhibit(
        "multiprocessing's own process",
        ["python", "-I", "app.py"],
        {
            "app.py": app(
                "from multiprocessing import resource_tracker; resource_tracker.ensure_running()",
                cleanup="os._exit(0)",
            )
        },
        "python exited 0, python torn-down",
        ["resource-tracker"],
        clean=True,
        status=0,
    ),
    Exhibit(
        "told and killed at once",
        RUNS,
        {
            "app.py": app(
                "import subprocess; child = subprocess.Popen(['sleep', '1000'])",
                # Suspended, it cannot end before the second signal.
                cleanup="child.send_signal(19); os.waitpid(child.pid, 2); child.terminate(); child.kill(); child.wait()",
            )
        },
        "python exited 0, sleep by SIGKILL",
        ["killed-in-a-hurry"],
        clean=True,
        status=0,
    ),
    Exhibit(
        "it is ready before it is",
        ["./entry.sh"],
        script("echo ready", "sleep 0.3", f"exec {PYTHON}"),
        "python killed",
        ["start-up-race"],
        options=["--grace", "8"],
        cures=["start-up-race"],
    ),
    Exhibit(
        "make",
        ["make", "--silent", "run"],
        {"Makefile": f"run:\n\t{PYTHON}\n", "app.py": deaf()},
        "make exited 2, python by SIGTERM",
        ["exited-2"],
        clean=True,
        status=2,
        needs="make",
        perhaps={"no-cleanup"},
    ),
]

NGINX = """\
daemon off;
pid nginx.pid;
error_log stderr notice;
events {}
http { access_log off; server { listen unix:it.sock; } }
"""

HAPROXY = """\
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend all
  bind unix@it.sock
"""

FPM = """\
[global]
error_log = /dev/stderr
daemonize = no
; without it SIGKILL follows its SIGTERM at once, and whether a worker sees that is a race
process_control_timeout = 10s
[www]
user = nobody
group = nogroup
listen = ${FOLDER}/it.sock
pm = static
pm.max_children = 2
"""

NODE = """\
const server = require('http').createServer((request, answer) => answer.end('ok'))
server.listen('it.sock')
"""

PHP_FPM = next((name for name in ("php-fpm8.4", "php-fpm8.3", "php-fpm8.2") if shutil.which(name)), "php-fpm")

POSTGRES = """\
#!/bin/sh
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
rm -rf data
install -d -o postgres data
gosu postgres initdb --no-sync -D data >/dev/null
gosu postgres postgres -D data -c listen_addresses= -c unix_socket_directories="$PWD/data"
"""

SOCKET = ["--grace", "10", "--timeout", "40", "--ready-file", "it.sock"]
"""Who binds it before he takes signals is not ready yet: as PID 1 he would never see one that came between. He says when."""


def server(name: str, line: str, ends: str, needs: str, more: Mapping[str, str], *options: str) -> Exhibit:
    """A real one, behind a script that does not forward to it."""
    return Exhibit(
        name,
        ["./entry.sh"],
        {"entry.sh": f"#!/bin/sh\nrm -f it.sock\n{line}\n", **more},
        ends,
        ["shell-does-not-forward"],
        ready="",
        options=[*SOCKET, *options],
        cures=["shell-does-not-forward"],
        needs=needs,
    )


CELERY = """\
import os, time
from celery import Celery, signals
app = Celery("app", broker="memory://")
@app.task
def work():
    os.write(1, b"ready\\n")
    time.sleep(4)
@signals.worker_ready.connect
def begin(**_):
    work.delay()
"""

CELERY_COMMAND = str(Path(sys.executable).parent / "celery")
"""Not one of the system, whose Python may be another."""

SERVERS = [
    server(
        "redis",
        "redis-server --port 0 --unixsocket it.sock --save ''",
        "sh killed, redis-server killed",
        "redis-server",
        {},
    ),
    server(
        "nginx",
        "nginx -p ./ -c nginx.conf",
        "sh killed, nginx killed, nginx killed",
        "nginx",
        {"nginx.conf": NGINX},
        *("--ready", "start worker process ", "--after", "1.5"),
    ),
    server(
        "haproxy",
        "haproxy -W -db -f haproxy.cfg",
        "sh killed, haproxy killed, haproxy killed",
        "haproxy",
        {"haproxy.cfg": HAPROXY},
        *("--ready", "Loading success", "--after", "1.5"),
    ),
    server(
        "php-fpm",
        f"{PHP_FPM} -y fpm.conf",
        "sh killed, php-fpm killed, php-fpm killed, php-fpm killed",
        PHP_FPM,
        {"fpm.conf": FPM},
        *("--ready", "ready to handle connections", "--after", "1.5"),
    ),
    Exhibit(
        "postgres behind gosu",
        ["./entry.sh"],
        {"entry.sh": POSTGRES},
        "sh killed, postgres killed",
        ["shell-does-not-forward"],
        ready="database system is ready",
        options=["--grace", "10"],
        cures=["shell-does-not-forward"],
        needs="initdb",
        only_first=2,
    ),
    server(
        "node",
        "node server.js",
        "sh killed, node killed",
        "node",
        {"server.js": NODE},
    ),
    Exhibit(
        "celery with a task in hand",
        [CELERY_COMMAND, "-A", "app", "worker", "--concurrency", "1", "--loglevel", "ERROR"],
        {"app.py": CELERY},
        "python killed, python killed",
        ["too-slow"],
        options=["--grace", "2"],
        cures=["too-slow"],
        needs=CELERY_COMMAND,
    ),
]

GALLERY = [*SHELLS, *PYTHONS, *INITS, *LINES, *SERVERS]

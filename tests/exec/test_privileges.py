"""Who the program is after the drop, and what it can never get back: beside gosu, setpriv and runuser where they are."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE

COMMAND = [sys.executable, "-m", "cleanup_guard", "exec"]
FACTS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
CAPS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NET_RAW, SETUID = 13, 7

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]


def status_after(*command: str) -> dict[str, str]:
    """What /proc says of a program that this command becomes."""
    done = subprocess.run(
        [*command, "cat", "/proc/self/status"], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    return {name: " ".join(lines[name].split()) for name in FACTS}


def ours(*words: str) -> dict[str, str]:
    return status_after(*COMMAND, *words)


def needed(tool: str) -> str:
    """Another such tool, or this test is skipped."""
    found = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"there is no {tool} here")
    return found


def test_the_table_is_that_of_runuser() -> None:
    """All ids, groups and capability sets."""
    assert ours("--user", "nobody") == status_after(needed("runuser"), "-u", "nobody", "--")
    assert ours("--user", "daemon") == status_after(needed("runuser"), "-u", "daemon", "--")


def test_the_table_is_that_of_setpriv() -> None:
    """With groups of its user, with one group, and of a number without an entry."""
    setpriv = needed("setpriv")
    gid = str(pwd.getpwnam("nobody").pw_gid)
    like = [setpriv, "--reuid", "nobody", "--regid", gid, "--init-groups"]
    assert ours("--user", "nobody") == status_after(*like)
    like = [setpriv, "--reuid", "54321", "--regid", "4321", "--groups", "4321"]
    assert ours("--user", "54321:4321") == status_after(*like)


@pytest.mark.parametrize(
    "word",
    ["nobody", "nobody:root", "nobody:", "0:", ":0", "", ":", "1234", "1234:55", ":55", "daemon", "root"],
)
def test_whom_a_word_means_is_what_gosu_takes_it_for(word: str) -> None:
    """Without a user it is the one that we are, without a group it is the user's. Only gosu leaves out the own group."""
    theirs, mine = status_after(needed("gosu"), word), ours("--user", word)
    groups = {mine["Gid"].split()[0], *theirs.pop("Groups").split()}
    assert set(mine.pop("Groups").split()) == groups
    assert mine == theirs


@pytest.mark.parametrize("user", [[], ["--user", "nobody"]])
def test_dropped_capabilities_are_in_no_set(user: list[str]) -> None:
    """All of them, also for a program that root is; and with no_new_privs, as of setpriv."""
    dropped = ours(*user, "--drop-caps", "all", "--no-new-privs")
    assert {int(dropped[name], 16) for name in CAPS} == {0}
    assert dropped["NoNewPrivs"] == "1"
    if not user:
        like = ("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs")
        assert dropped == status_after(needed("setpriv"), *like)


def test_some_capabilities_are_dropped_and_the_others_stay() -> None:
    """By name, in any spelling; the others are as they were."""
    before, after = ours(), ours("--drop-caps", "net_raw,CAP_SETUID")
    lost = 1 << NET_RAW | 1 << SETUID
    assert {name: int(after[name], 16) for name in CAPS} == {
        name: int(before[name], 16) & ~lost for name in CAPS
    }
    assert int(before["CapBnd"], 16) & lost == lost


def test_inheritable_capabilities_do_not_survive_being_dropped() -> None:
    """A container engine may have left them there; a change of the user alone does not touch them."""
    with_them = [needed("setpriv"), "--inh-caps=+net_raw", *COMMAND, "--user", "nobody"]
    assert int(status_after(*with_them)["CapInh"], 16) == 1 << NET_RAW
    assert int(status_after(*with_them, "--drop-caps", "net_raw")["CapInh"], 16) == 0


def test_who_may_not_drop_is_told_before_anything_is_done(tmp_path: Path) -> None:
    """One sentence, 126, and no file written."""
    (tmp_path / "t").write_text("x")
    setpriv = needed("setpriv")
    for lacking, words, sentence in (
        ("setpcap", ["--drop-caps", "all"], "only be dropped by root, or with the capability SETPCAP"),
        ("setuid", ["--user", "nobody"], "only root can become user 65534 and group 65534, with"),
        ("setgid", ["--user", "nobody"], "only root can become user 65534 and group 65534, with"),
    ):
        limits = [f"--bounding-set=-{lacking}", f"--inh-caps=-{lacking}"]
        command = [setpriv, *limits, *COMMAND, *words, "--template", f"{tmp_path}/t:{tmp_path}/out", "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert (done.returncode, done.stderr.count("\n")) == (126, 1)
        assert sentence in done.stderr
        assert not (tmp_path / "out").exists()


def test_without_capabilities_one_can_stay_who_one_is() -> None:
    """`--user root` of a root that may not change is no change."""
    limits = [needed("setpriv"), "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"]
    assert status_after(*limits, *COMMAND, "--user", "0:0")["Uid"] == "0 0 0 0"


def test_a_death_signal_survives_the_change_of_the_user() -> None:
    """The kernel forgets it then; `run --pdeathsig` before `exec --user` would be for nothing."""
    setpriv = needed("setpriv")
    dump = [*COMMAND, "--user", "nobody", "--", setpriv, "--dump"]
    done = subprocess.run(
        [setpriv, "--pdeathsig", "TERM", *dump], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert "Parent death signal: TERM" in done.stdout
    run = [sys.executable, "-m", "cleanup_guard", "run", "--pdeathsig", "USR1", "--"]
    done = subprocess.run([*run, *dump], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert "Parent death signal: USR1" in done.stdout


TYPE = "perl -e 'exit(ioctl(STDIN, 0x5412, my $x = \"#\") ? 0 : 1)'"
"""Types a character into the terminal, as if a person had (TIOCSTI)."""


@pytest.mark.parametrize(
    ("words", "script", "expected"),
    [
        (["--user", "nobody"], "true </dev/tty", "refused"),
        (["--user", "nobody"], TYPE, "refused"),
        (["--user", "nobody", "--keep-terminal"], "true </dev/tty", "done"),
        (["--user", "root"], "true </dev/tty", "done"),
        ([], "true </dev/tty", "done"),
    ],
)
def test_another_user_cannot_type_into_our_terminal(words: list[str], script: str, expected: str) -> None:
    """He has it no more, and the kernel refuses him; who stays himself keeps it."""
    if script == TYPE:
        needed("perl")
    command = [*COMMAND, *words, "--", "sh", "-c", f"({script}) 2>/dev/null && echo done || echo refused"]
    assert on_a_terminal(f"import subprocess; subprocess.run({command!r})") == expected


def test_in_a_session_of_its_own_a_program_keeps_its_terminal() -> None:
    """`docker run -it`: nobody else reads from it."""
    command = [*COMMAND, "--user", "nobody", "--", "sh", "-c", "true </dev/tty && echo done"]
    assert on_a_terminal(f"import os; os.execv({command[0]!r}, {command!r})") == "done"


def test_ctrl_c_still_arrives() -> None:
    """The terminal's foreground process group is what it was."""
    script = "trap 'echo interrupted; exit' INT; printf '\\003'; echo ready; while :; do sleep 0.05; done"
    command = [*COMMAND, "--user", "nobody", "--", "sh", "-c", script]
    assert "interrupted" in on_a_terminal(f"import subprocess; subprocess.run({command!r})", types=b"\x03")


ON_A_TERMINAL = """
import os, pty, select, sys
pid, terminal = pty.fork()
if pid == 0:
    exec(sys.argv[1])
    os._exit(0)
seen, types = b"", bytes.fromhex(sys.argv[2])
while True:
    try: data = os.read(terminal, 1000)
    except OSError: break
    if not data: break
    seen += data
    if types and b"ready" in seen:
        os.write(terminal, types)
        types = b""
os.waitpid(pid, 0)
print(seen.decode())
"""


def on_a_terminal(code: str, types: bytes = b"") -> str:
    """What is written on the terminal of a session in which this code runs as its leader.

    Args:
        code: Python.
        types: what is typed when "ready" was seen.
    """
    done = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL, code, types.hex()],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout.strip()

"""`cleanup-guard exec` as it is typed: options, environment, templates, and what it says when something is wrong."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support import wait_until

import cleanup_guard

COMMAND = [sys.executable, "-m", "cleanup_guard"]
SECRET = "hunter2"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files and users away")


def run_exec(*words: str | bytes, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `cleanup-guard exec` with these words."""
    command = [*COMMAND, "exec", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


# -- words ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [COMMAND, [str(Path(sys.executable).parent / "cleanup-guard")]])
def test_the_script_and_the_module_do_the_same(entry: list[str]) -> None:
    """`cleanup-guard exec` and `python -m cleanup_guard exec` pass on arguments and status."""
    words = ["exec", "sh", "-c", 'printf "[%s]" "$@"; exit 7', "sh", "-x", "", "a b"]
    done = subprocess.run([*entry, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "[-x][][a b]", "")


def test_bytes_that_are_no_text_arrive() -> None:
    """File names in any encoding."""
    done = subprocess.run([*COMMAND, "exec", "printf", b"\xff"], capture_output=True, check=False)
    assert done.stdout == b"\xff"


def test_the_commands_are_listed() -> None:
    """Without a command, with an unknown one, and on request."""
    told = [
        subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
        for words in ([], ["--help"], ["bogus"])
    ]
    assert [done.returncode for done in told] == [2, 0, 2]
    assert "exec" in told[0].stdout
    assert told[2].stderr.startswith("cleanup-guard: there is no command 'bogus'")


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ([], 2, "which program?"),
        (["--bogus", "x"], 2, "there is no option '--bogus'"),
        (["-x"], 2, "there is no option '-x'"),
        (["--env"], 2, "--env needs a value: --env NAME=VALUE"),
        (["--env", SECRET, "true"], 2, "--env needs NAME=VALUE: = is missing"),
        (["--env", f"={SECRET}", "true"], 2, "--env needs NAME=VALUE: the name is missing"),
        (["--unset", f"A={SECRET}", "true"], 2, "--unset needs the NAME"),
        (["--umask", "999", "true"], 2, "--umask '999'"),
        (["--umask", "1000", "true"], 2, "--umask '1000'"),
        (["--umask", "9" * 9999, "true"], 2, "is no octal number"),
        (["--umask", "٣", "true"], 2, "is no octal number"),
        (["--umask", "7_7", "true"], 2, "is no octal number"),
        (["--mode", "10000", "--template", "/etc/hostname:/no/such", "true"], 2, "--mode '10000'"),
        (["--pass-fd", "x", "true"], 2, "--pass-fd 'x'"),
        (["--pass-fd", "999", "true"], 2, "file descriptor 999 is not open"),
        (["--pass-fd", "9999999999", "true"], 2, "file descriptor 9999999999 is not open"),
        (["--pass-fd", "99999999999", "true"], 2, "there is no file descriptor of so high a number"),
        (["--pass-fd", "9" * 9999, "true"], 2, "there is no file descriptor of so high a number"),
        (["--drop-caps", "no_such", "true"], 2, "there is no capability 'no_such'"),
        (["--drop-caps", "", "true"], 2, "there is no capability ''"),
        (["--only", "A-B", "--template", "/etc/hostname:/no/such", "true"], 2, "--only needs names"),
        (["--signals", "all", "true"], 2, "not 'all'"),
        (["--user", "no-such", "true"], 2, "'no-such'"),
        (["--user", "root:no-such", "true"], 2, "'no-such'"),
        (["--user", "9" * 9999, "true"], 2, "the number of no user or group"),
        (["--user", "root:4294967295", "true"], 2, "the number of no user or group"),
        (["--user", "a:b:c", "true"], 2, "there is no user 'a'"),
        (["--workdir", "/no/such", "true"], 2, "--workdir '/no/such'"),
        (["--env-file", "/no/such", "true"], 2, "--env-file /no/such"),
        (["--template", "x", "true"], 2, "--template needs SRC:DST"),
        (["--template", "/no/such:/tmp/x", "true"], 2, "--template /no/such"),
        (["no-such-program"], 127, "there is no program no-such-program"),
        (["--env", "PATH=/no/such", "true"], 127, "there is no program true"),
        (["/no/such/program"], 127, "there is no file /no/such/program"),
        (["/"], 126, "/ is a directory"),
        (["/etc/passwd"], 126, "/etc/passwd is not executable"),
        (["--argv0", "", "true"], 2, "the name of the program is empty"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_word(words: list[str], status: int, sentence: str) -> None:
    """2 for how it was asked, 127 not found, 126 not executable; never a traceback, never a value."""
    done = run_exec(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("cleanup-guard exec: ")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert SECRET not in done.stderr


# -- the environment --------------------------------------------------------------------------------------------------------


def test_env_unset_and_env_file_from_left_to_right(tmp_path: Path) -> None:
    """A later option wins; a file's values are taken as they are."""
    file = tmp_path / "env"
    file.write_bytes(b"# comment\n\n  A=from file\r\nB='quoted' $A #x\nC=\nD=\xff\n")
    words = ["--env", "A=early", "--env-file", str(file), "--env", "C=late", "--unset", "E", "--", "env"]
    done = subprocess.run(
        [*COMMAND, "exec", *words], capture_output=True, env={**os.environ, "E": "x"}, check=True
    )
    lines = done.stdout.splitlines()
    assert {b"A=from file", b"B='quoted' $A #x", b"C=late", b"D=\xff"} <= set(lines)
    assert not [line for line in lines if line.startswith(b"E=")]


def test_a_broken_line_of_an_env_file_is_named_not_shown(tmp_path: Path) -> None:
    """It may be the second line of a private key."""
    file = tmp_path / "env"
    file.write_text(f"A=1\n{SECRET}\n")
    done = run_exec("--env-file", str(file), "true")
    assert (done.returncode, done.stderr) == (
        2,
        f"cleanup-guard exec: --env-file {file}, line 2: not NAME=VALUE\n",
    )


@needs_root
def test_user_sets_what_names_him_unless_env_does() -> None:
    """HOME, USER and LOGNAME; of a number without an entry the root folder and no name; --env has the last word."""
    nobody = pwd.getpwnam("nobody")
    env = {**os.environ, "HOME": "/root", "USER": "root", "LOGNAME": "root"}

    def told(*words: str) -> list[str]:
        script = 'id -u; id -g; echo "$HOME" "${USER-none}" "${LOGNAME-none}"'
        return run_exec(*words, "sh", "-c", script, env=env).stdout.split()

    his = [str(nobody.pw_uid), str(nobody.pw_gid), nobody.pw_dir, "nobody", "nobody"]
    assert told("--user", "nobody") == his
    assert told("--user", str(nobody.pw_uid)) == his
    assert told("--user", "54321:4321") == ["54321", "4321", "/", "none", "none"]
    assert told("--user", "54321:4321", "--env", "HOME=/x", "--env", "USER=u") == [
        "54321",
        "4321",
        "/x",
        "u",
        "none",
    ]
    assert told("--user", "nobody", "--unset", "LOGNAME")[-2:] == ["nobody", "none"]
    assert told() == ["0", "0", "/root", "root", "root"]


def test_workdir_umask_argv0_and_descriptors(tmp_path: Path) -> None:
    """The rest of the target's world; a relative program starts from the new folder."""
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\npwd -P; umask; cat "/dev/fd/$1"\n')
    program.chmod(0o755)
    reader, writer = os.pipe()
    os.write(writer, b"passed\n")
    os.close(writer)
    words = ["--workdir", str(tmp_path), "--umask", "027", "--pass-fd", str(reader), "./program", str(reader)]
    done = run_exec(*words, pass_fds=[reader])
    os.close(reader)
    assert done.stdout.split() == [os.path.realpath(tmp_path), "0027", "passed"]
    assert run_exec("--argv0", "-name", "sh", "-c", "echo $0").stdout == "-name\n"


# -- templates --------------------------------------------------------------------------------------------------------------


def render(tmp_path: Path, text: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Render one template to tmp_path/out."""
    (tmp_path / "app.in").write_text(text)
    word = f"{tmp_path}/app.in:{tmp_path}/out"
    return run_exec("--template", word, *words, "true", env={"PATH": os.environ["PATH"], **env})


def test_a_template_is_filled_from_the_new_environment(tmp_path: Path) -> None:
    """$NAME, ${NAME} and $$; --env counts; line ends and other bytes are kept."""
    (tmp_path / "app.in").write_bytes(b"a=$A b=${B}c\r\n$$HOME \xff\n")
    out = tmp_path / "out"
    done = run_exec(
        "--env", "B=2", "--template", f"{tmp_path}/app.in:{out}", "true", env={**os.environ, "A": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == b"a=1 b=2c\r\n$HOME \xff\n"


def test_a_missing_variable_is_named_with_file_and_line_and_nothing_is_written(tmp_path: Path) -> None:
    """All of them at once, and neither that template nor the one before it is written."""
    (tmp_path / "good.in").write_text("fine")
    good = f"{tmp_path}/good.in:{tmp_path}/good"
    done = render(tmp_path, "$A\n\n$MISSING ${GONE}\n", "--template", good, A=SECRET)
    where = f"{tmp_path}/app.in, line 3"
    assert done.stderr == (
        f"cleanup-guard exec: missing environment variables: MISSING ({where}), GONE ({where})\n"
    )
    assert done.returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.in", "good.in"]


def test_a_dollar_sign_that_begins_no_name_is_told(tmp_path: Path) -> None:
    """With file and line; a file that was there stays."""
    (tmp_path / "out").write_text("old")
    done = render(tmp_path, "ok\ncost: 5$\n")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{tmp_path}/app.in, line 2: a dollar sign" in done.stderr
    assert (tmp_path / "out").read_text() == "old"


def test_a_program_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    """The lookup comes first."""
    (tmp_path / "app.in").write_text("x")
    done = run_exec("--template", f"{tmp_path}/app.in:{tmp_path}/out", "no-such-program")
    assert done.returncode == 127
    assert not (tmp_path / "out").exists()


def test_a_folder_of_templates(tmp_path: Path) -> None:
    """Every file below it, folders made as needed; Kubernetes' own copies (..data) left out, its links followed."""
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    (source / "..2026").mkdir()
    (source / "..2026" / "a.conf").write_text("a=$A")
    (source / "..data").symlink_to("..2026")
    (source / "a.conf").symlink_to("..data/a.conf")
    (source / "sub" / "b.conf").write_text("b=$A")
    done = run_exec("--env", "A=1", "--template", f"{source}:{tmp_path}/out", "true")
    assert done.returncode == 0, done.stderr
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert found == {"a.conf", "sub/b.conf"}
    assert (tmp_path / "out" / "sub" / "b.conf").read_text() == "b=1"


def test_writing_replaces_the_file_with_the_templates_permissions(tmp_path: Path) -> None:
    """A reader of the old file keeps it whole; the old mode is forgotten; --mode has the last word."""
    out = tmp_path / "out"
    out.write_text("old")
    out.chmod(0o666)
    with out.open() as reader:
        assert render(tmp_path, "new").returncode == 0
        assert reader.read() == "old"
    template = stat.S_IMODE((tmp_path / "app.in").stat().st_mode)
    assert (out.read_text(), stat.S_IMODE(out.stat().st_mode)) == ("new", template)
    assert render(tmp_path, "new", "--mode", "640").returncode == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    out.unlink()
    (tmp_path / "app.in").chmod(0o600)
    assert render(tmp_path, "new").returncode == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it points to is replaced."""
    (tmp_path / "real").write_text("old")
    (tmp_path / "out").symlink_to("real")
    assert render(tmp_path, "new").returncode == 0
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@needs_root
def test_the_owner_is_us_or_as_asked(tmp_path: Path) -> None:
    """Not that of the file which is replaced: somebody may have put it there for that."""
    out = tmp_path / "out"
    out.write_text("old")
    os.chown(out, 54321, 4321)
    assert render(tmp_path, "new").returncode == 0
    assert (out.stat().st_uid, out.stat().st_gid) == (os.getuid(), os.getgid())
    for word, owner in (("1234:5678", (1234, 5678)), (":5678", (os.getuid(), 5678)), ("0:", (0, 0))):
        assert render(tmp_path, "new", "--owner", word).returncode == 0
        assert (out.stat().st_uid, out.stat().st_gid) == owner


def test_what_cannot_be_written_is_told_without_its_content(tmp_path: Path) -> None:
    """One sentence, and no half-written file beside it."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "app.in").mkdir()
    done = render(tmp_path, f"password={SECRET}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{tmp_path}/out/app.in cannot be written" in done.stderr
    assert SECRET not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["app.in"]


# -- signals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_the_exec_ends_it_without_a_traceback(signum: int, tmp_path: Path) -> None:
    """It waits for an env file from a pipe, and Ctrl-C or SIGTERM ends that; nothing is started."""
    pipe = tmp_path / "env"
    os.mkfifo(pipe)
    command = [*COMMAND, "exec", "--env-file", str(pipe), "echo", "TARGET"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_default_sigint
    ) as process:
        with pipe.open("wb"):  # succeeds once it has opened its end, so that it listens
            process.send_signal(signum)
            wait_until(lambda: process.poll() is not None, "the end")
        assert process.communicate() == (b"", b"")
    assert process.returncode == -signum


@needs_root
@pytest.mark.skipif(sys.platform != "linux", reason="needs a PID namespace")
def test_as_pid_1_a_stop_before_the_exec_ends_it_too(tmp_path: Path) -> None:
    """The kernel would drop the signal there, if nobody listened."""
    pipe = tmp_path / "env"
    os.mkfifo(pipe)
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*namespace, *COMMAND, "exec", "--env-file", str(pipe), "echo", "TARGET"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with pipe.open("wb"):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

            def stopped() -> bool:
                # More than once: one that comes just before the read that blocks is noticed at the next.
                if process.poll() is None:
                    subprocess.run(["kill", *children], check=False, stderr=subprocess.DEVNULL)
                return process.poll() is not None

            wait_until(stopped, "the end")
        assert process.communicate() == (b"", b"")
    assert process.returncode == 143


def _default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@needs_root
def test_a_failure_is_told_by_one_who_may_not_read_our_code_any_more(tmp_path: Path) -> None:
    """The exec itself fails, as the other user: what writes that down has been loaded before."""
    ours = tmp_path / "only for root"
    ours.mkdir(mode=0o700)
    shutil.copytree(Path(cleanup_guard.__file__).parent, ours / "cleanup_guard")
    code = (
        f"import sys; sys.path.insert(0, {str(ours)!r}); from cleanup_guard._cli import main; "
        "sys.exit(main(['exec', '--user', '65534', 'true', 'x' * (1 << 18)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 126
    assert done.stderr.endswith("are too long\n")
    assert done.stderr.count("\n") == 1


def test_only_what_is_needed_is_imported() -> None:
    """Templates bring in string and re, a user brings in pwd; the plain way needs neither, nor argparse or enum."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-I", "-c", "import os; os.execvp('true', ['true'])"],
        capture_output=True,
        text=True,
        check=True,
    )
    bare = _imports(done.stderr)
    code = "import sys; from cleanup_guard._cli import main; sys.exit(main(['exec', 'true']))"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-I", "-c", code], capture_output=True, text=True, check=True
    )
    ours = {name for name in _imports(done.stderr) - bare if not name.startswith("cleanup_guard")}
    assert ours <= {"_signal", *bare_path_hooks()}


def _imports(report: str) -> set[str]:
    return {
        line.rpartition("|")[2].strip() for line in report.splitlines() if line.startswith("import time:")
    }


def bare_path_hooks() -> set[str]:
    """What an editable installation may bring in by itself."""
    return {name for name in sys.modules if name.startswith("__editable__")}

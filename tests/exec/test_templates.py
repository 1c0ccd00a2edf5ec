"""Where config files come from and where they go: folders, links of Kubernetes, mounts, devices, Jinja2."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import PATIENCE

from cleanup_guard._cli._templates import DEEPEST

COMMAND = [sys.executable, "-m", "cleanup_guard", "exec"]
SECRET = "hunter2"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files and users away")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="mounts")


def render(
    *words: str, cwd: Path, wrapper: tuple[str, ...] = (), **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `cleanup-guard exec` with these words and `true`."""
    command = [*wrapper, *COMMAND, *words, "--", "true"]
    variables = {"PATH": os.environ["PATH"], **env}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=cwd, env=variables
    )


def rendered(*words: str, cwd: Path, **env: str) -> None:
    """As `render`, which must succeed and say nothing."""
    done = render(*words, cwd=cwd, wrapper=(), **env)
    assert (done.returncode, done.stderr) == (0, "")


# -- where to ---------------------------------------------------------------------------------------------------------------


def test_a_destination_that_ends_in_a_slash_is_a_folder(tmp_path: Path) -> None:
    """It is made if it is not there."""
    (tmp_path / "app.conf").write_text("$A")
    rendered("--template", "app.conf:new/folder/", cwd=tmp_path, A="1")
    rendered("--template", "app.conf:new", cwd=tmp_path, A="2")
    assert (tmp_path / "new" / "folder" / "app.conf").read_text() == "1"
    assert (tmp_path / "new" / "app.conf").read_text() == "2"


def test_links_to_folders_in_the_source_are_followed(tmp_path: Path) -> None:
    """A ConfigMap's items with a path: `sub` is a link to `..data/sub`, and `..data` one to the folder of a date."""
    dated = tmp_path / "cm" / "..2026"
    (dated / "sub").mkdir(parents=True)
    (dated / "top.conf").write_text("a=$A")
    (dated / "sub" / "in.conf").write_text("b=$A")
    (tmp_path / "cm" / "..data").symlink_to("..2026")
    (tmp_path / "cm" / "top.conf").symlink_to("..data/top.conf")
    (tmp_path / "cm" / "sub").symlink_to("..data/sub")
    rendered("--template", "cm:out", cwd=tmp_path, A="1")
    found = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert found == {"top.conf", "sub/in.conf"}
    assert (tmp_path / "out" / "sub" / "in.conf").read_text() == "b=1"


@pytest.mark.parametrize("kind", ["loop", "fifo", "dangling", "deep"])
def test_a_source_that_has_no_end_is_refused(tmp_path: Path, kind: str) -> None:
    """A link to a folder around it, a FIFO, a link to nothing, too many levels: a sentence, and nothing is written."""
    source = tmp_path / "in"
    source.mkdir()
    if kind == "loop":
        (source / "again").symlink_to(".")
    elif kind == "fifo":
        os.mkfifo(source / "pipe")
    elif kind == "dangling":
        (source / "gone").symlink_to("nowhere")
    else:
        source.joinpath(*["d"] * (DEEPEST + 1)).mkdir(parents=True)
    (source / "a.conf").write_text("x")
    done = render("--template", "in:out", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("cleanup-guard exec: --template in")
    assert not (tmp_path / "out").exists()


@needs_root
@needs_linux
def test_what_is_mounted_is_written_in_place(tmp_path: Path) -> None:
    """A bind-mounted file cannot be replaced. It keeps its owner and mode, but for what the template does not let read."""
    (tmp_path / "template").write_text("new=$A")
    (tmp_path / "template").chmod(0o640)
    (tmp_path / "outside").write_text("old and longer")
    (tmp_path / "outside").chmod(0o664)
    os.chown(tmp_path / "outside", 54321, 54321)
    (tmp_path / "inside").touch()
    mount = f'mount --bind {tmp_path}/outside {tmp_path}/inside && exec "$@"'
    wrapper = ("unshare", "--mount", "sh", "-c", mount, "sh")
    done = render("--template", "template:inside", cwd=tmp_path, wrapper=wrapper, A="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "outside").read_text() == "new=1"
    status = (tmp_path / "outside").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (54321, 0o660)
    done = render(
        "--template",
        "template:inside",
        "--mode",
        "604",
        "--owner",
        "1:2",
        cwd=tmp_path,
        wrapper=wrapper,
        A="",
    )
    assert done.returncode == 0, done.stderr
    status = (tmp_path / "outside").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1, 2, 0o604)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "outside", "template"]


@needs_root
@needs_linux
def test_in_a_folder_that_is_not_writable_a_file_is_written_in_place(tmp_path: Path) -> None:
    """By a plain user, whose file lies in root's folder; and by root, on a root file system that is only to be read."""
    (tmp_path / "template").write_text("new=$A")
    (tmp_path / "out").write_text("old")
    os.chown(tmp_path / "out", 54321, 54321)
    open_to_all(tmp_path)
    done = render_as(54321, "template:out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == "new=1"
    done = render_as(54321, "template:other", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "other cannot be written: Permission denied" in done.stderr
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro" / "out").touch()
    mounts = (
        f"mount --bind {tmp_path}/ro {tmp_path}/ro && mount --bind {tmp_path}/out {tmp_path}/ro/out && "
        f'mount -o remount,ro,bind {tmp_path}/ro && exec "$@"'
    )
    wrapper = ("unshare", "--mount", "sh", "-c", mounts, "sh")
    done = render("--template", "template:ro/out", cwd=tmp_path, wrapper=wrapper, A="2")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == "new=2"


def render_as(uid: int, word: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Render one template as a plain user. Python may lie where only root may look, so all is imported before."""
    code = f"""
import os, sys
import cleanup_guard._cli._templates, cleanup_guard._cli._exec
from cleanup_guard._cli import main
os.setgroups([]); os.setgid({uid}); os.setuid({uid}); os.environ["A"] = "1"
sys.exit(main(["exec", "--template", {word!r}, "/bin/true"]))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=cwd)


def open_to_all(folder: Path) -> None:
    """Let everybody in: pytest's folders are root's alone."""
    for path in (folder, *folder.parents):
        if str(path) != "/tmp" and path != Path("/") and path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o055)


def test_devices_and_pipes_are_written_to_and_stay(tmp_path: Path) -> None:
    """A FIFO with a reader, /dev/null, and stdout, whatever that is."""
    (tmp_path / "template").write_text("a=$A\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    rendered("--template", "template:pipe", cwd=tmp_path, A="1")
    reader.join(PATIENCE)
    assert got == ["a=1\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    rendered("--template", "template:/dev/null", cwd=tmp_path, A="1")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    for name in ("/dev/stdout", "/dev/fd/1"):
        done = render("--template", f"template:{name}", cwd=tmp_path, A="2")
        assert (done.returncode, done.stdout, done.stderr) == (0, "a=2\n", "")
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("a") as file:
        command = [*COMMAND, "--template", "template:/dev/stdout", "--", "echo", "after"]
        subprocess.run(command, stdout=file, check=True, cwd=tmp_path, env={**os.environ, "A": "3"})
    assert log.read_text() == "before\na=3\nafter\n"


def test_a_template_and_an_env_file_may_come_from_a_pipe(tmp_path: Path) -> None:
    """As from a shell's `<(...)`."""
    reader, writer = os.pipe()
    os.write(writer, b"A=1\n")
    os.close(writer)
    (tmp_path / "template").write_text("a=$A")
    command = [*COMMAND, "--env-file", f"/dev/fd/{reader}", "--template", "template:out", "--", "true"]
    subprocess.run(command, check=True, pass_fds=[reader], cwd=tmp_path)
    os.close(reader)
    assert (tmp_path / "out").read_text() == "a=1"


def test_a_fifo_without_a_reader_does_not_keep_a_stop_from_us(tmp_path: Path) -> None:
    """A stop waits for a file to be whole, but not for somebody who never reads."""
    (tmp_path / "template").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    command = [
        *COMMAND,
        "--verbose",
        "--template",
        "template:first",
        "--template",
        "template:pipe",
        "--",
        "true",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "first created" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM


def test_the_names_of_a_list_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    """Nginx's own variables stay; the list is written in either form."""
    (tmp_path / "nginx.conf").write_text("listen $PORT; proxy_set_header Host $host; if ($uri ~ ^/a$) {}\n")
    expected = "listen 80; proxy_set_header Host $host; if ($uri ~ ^/a$) {}\n"
    for words in (["--only", "PORT"], ["--only", "$PORT ${NAME}"], ["--only", "NAME", "--only=PORT,X"]):
        rendered("--template", "nginx.conf:out", *words, cwd=tmp_path, PORT="80", host="wrong")
        assert (tmp_path / "out").read_text() == expected


def test_defaults_and_messages_in_a_file(tmp_path: Path) -> None:
    """The template's own message is told beside the place; the values are not."""
    (tmp_path / "a.in").write_text("${PORT:-80}\n${URL:?where is $PASSWORD}\n")
    done = render("--template", "a.in:out", cwd=tmp_path, PASSWORD=SECRET)
    assert done.stderr == (
        "cleanup-guard exec: missing environment variable: URL (a.in, line 2: where is $PASSWORD)\n"
    )
    rendered("--template", "a.in:out", cwd=tmp_path, URL="x")
    assert (tmp_path / "out").read_text() == "80\nx\n"


def test_five_megabytes_with_fifty_thousand_names_are_no_matter(tmp_path: Path) -> None:
    """They took a minute once."""
    (tmp_path / "big").write_text("".join(f"{'x' * 80} $A line {number}\n" for number in range(50_000)))
    began = os.times()
    rendered("--template", "big:out", cwd=tmp_path, A="1")
    assert os.times().children_user - began.children_user < 10
    assert (tmp_path / "out").stat().st_size > 4_500_000


def test_thousands_of_missing_variables_make_a_short_sentence(tmp_path: Path) -> None:
    """The first twenty, and how many more."""
    (tmp_path / "big").write_text("".join(f"$N{number}\n" for number in range(5_000)))
    done = render("--template", "big:out", cwd=tmp_path)
    assert "N19 (big, line 20), and 4980 more\n" in done.stderr


# -- Jinja2 -----------------------------------------------------------------------------------------------------------------


def test_jinja2_renders_what_is_called_so(tmp_path: Path) -> None:
    """In a file and in a folder, which gets the name without the suffix; variables, `env`, includes, line ends."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.conf.j2").write_bytes(
        b"{% for host in HOSTS.split(',') %}\r\nserver {{ host }};\r\n{% endfor %}{% include 'b.conf.jinja' %}\r\n$A\r\n"
    )
    (folder / "b.conf.jinja").write_text(
        "{{ NO|default('none') }} {{ env['A'] }} {{ '&' }} {{ env.get('NO') }}"
    )
    (folder / "c.conf").write_text("$A {{ A }}")
    rendered("--template", "in:out", cwd=tmp_path, HOSTS="a,b", A="1")
    assert (tmp_path / "out" / "a.conf").read_bytes() == (
        b"\r\nserver a;\r\n\r\nserver b;\r\nnone 1 & None\r\n$A\r\n"
    )
    assert (tmp_path / "out" / "b.conf").read_text() == "none 1 & None"
    assert (tmp_path / "out" / "c.conf").read_text() == "1 {{ A }}"
    rendered("--template", "in/b.conf.jinja:named", "--template", "in/b.conf.jinja:out/", cwd=tmp_path, A="2")
    assert (tmp_path / "named").read_text() == "none 2 & None"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ok\n{{ NO }}", "missing environment variable: NO (t.j2, line 2)"),
        ("\n\n{% if %}", "t.j2, line 3: that is no Jinja2"),
        ("{{ env[PASSWORD] }}", "t.j2, line 1: this cannot be rendered (UndefinedError)"),
        ("{{ PASSWORD + 1 }}", "t.j2, line 1: this cannot be rendered (TypeError)"),
        ("{{ PASSWORD.__class__.__mro__ }}", "t.j2, line 1: this cannot be rendered (SecurityError)"),
        ("{{ PASSWORD|nofilter }}", "t.j2, line 1: that is no Jinja2"),
        ("{% include '../outside' %}", "t.j2: there is no template '../outside' to include"),
        ("{% include '/etc/hostname' %}", "t.j2: there is no template '/etc/hostname' to include"),
        ("{% include 'no' %}", "no cannot be included: there is no such file"),
        (
            "{% for i in range(999999999) %}{% endfor %}",
            "t.j2, line 1: this cannot be rendered (OverflowError)",
        ),
        ("{{ '\\ud800' }}", "t.j2: it comes to characters that no file can hold"),
    ],
)
def test_what_jinja2_cannot_render_is_a_sentence_without_values(
    tmp_path: Path, text: str, sentence: str
) -> None:
    """Template, line and kind."""
    (tmp_path / "t.j2").write_text(text)
    (tmp_path / "outside").write_text("x")
    done = render("--template", "t.j2:out", cwd=tmp_path, PASSWORD=SECRET)
    assert (done.returncode, done.stderr) == (2, f"cleanup-guard exec: {sentence}\n")
    assert not (tmp_path / "out").exists()


def test_without_jinja2_it_is_said_what_to_install(tmp_path: Path) -> None:
    """It is an extra."""
    (tmp_path / "t.j2").write_text("x")
    code = (
        "import sys; sys.modules['jinja2'] = None; from cleanup_guard._cli import main; "
        "sys.exit(main(['exec', '--template', 't.j2:out', 'true']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == (
        "cleanup-guard exec: --template t.j2 is a Jinja2 template, and jinja2 is not installed here: "
        "pip install 'cleanup-guard[jinja]'\n"
    )


# -- what is said -----------------------------------------------------------------------------------------------------------


def test_verbose_says_what_is_done_and_no_value(tmp_path: Path) -> None:
    """Files, names of variables, the program."""
    (tmp_path / "t").write_text("$A")
    (tmp_path / "e").write_text(f"A={SECRET}\n")
    done = render("--verbose", "--env-file", "e", "--unset", "B", "--template", "t:out", cwd=tmp_path)
    lines = [line.removeprefix("cleanup-guard exec: ") for line in done.stderr.splitlines()]
    assert lines[:3] == ["out created, from t", "the variable A is set", "the variable B is removed"]
    assert lines[3].startswith("executing /")
    assert SECRET not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="how many descriptors Python itself needs differs")
def test_without_descriptors_it_is_a_sentence(tmp_path: Path) -> None:
    """Whatever runs out of them first: no traceback, and no file beside the one that could not be written."""
    (tmp_path / "t").write_text("x")
    before = {"t", "out"}
    statuses = set()
    for most in range(4, 12):
        limit = ("sh", "-c", f'ulimit -n {most}; exec "$@"', "sh")
        done = render("--template", "t:out", cwd=tmp_path, wrapper=limit)
        if "cleanup-guard exec: " in done.stderr:
            assert done.stderr.endswith("Too many open files\n")
            assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        statuses.add(done.returncode)
        assert {path.name for path in tmp_path.iterdir()} <= before
    assert 0 in statuses

"""Attacks by somebody who owns a folder that root writes into, or reads from, and a process beside root's.

Whatever he plants or swaps: nothing outside of his folder is touched or read, nothing hangs, and what he may not read stays so.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from exec.test_templates import open_to_all
from support import PATIENCE

COMMAND = [sys.executable, "-m", "cleanup_guard", "exec"]
SECRET = "hunter2"
HIS = 54321
"""The attacker, by number."""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux, and gcc's"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose"),
]


class Scene:
    """Root's folder with a file in it, his folder, and a template with a secret."""

    def __init__(self, folder: Path) -> None:
        self.his = folder / "his"
        self.roots = folder / "roots"
        self.precious = self.roots / "passwd"
        self.template = folder / "template"
        self.his.mkdir()
        self.roots.mkdir()
        self.precious.write_text("root:x:0:0")
        self.precious.chmod(0o644)
        self.template.write_text("password=$PASSWORD")
        self.template.chmod(0o640)
        os.chown(self.his, HIS, HIS)

    def render(
        self, *words: str, template: Path | None = None, to: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """As root, into his folder."""
        word = f"{template or self.template}:{to or self.his / 'app.conf'}"
        command = [*COMMAND, "--env", f"PASSWORD={SECRET}", "--template", word, *words, "--", "true"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def refused(self, done: subprocess.CompletedProcess[str], what: str) -> None:
        """One sentence that says what, and whose; nothing of root's was touched."""
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert what in done.stderr
        assert f"user {HIS} controls its folder" in done.stderr
        assert SECRET not in done.stderr
        self.untouched()

    def untouched(self) -> None:
        """What is root's is as it was."""
        status = self.precious.stat()
        assert self.precious.read_text() == "root:x:0:0"
        assert (status.st_uid, stat.S_IMODE(status.st_mode), status.st_nlink) == (0, 0o644, 1)
        assert [path.name for path in self.roots.iterdir()] == ["passwd"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    open_to_all(tmp_path)
    return Scene(tmp_path)


# -- links ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--owner", str(HIS), "--mode", "600"]])
@pytest.mark.parametrize("target", ["passwd", "ld.so.preload", "."])
def test_a_link_in_the_place_of_the_file(scene: Scene, target: str, words: list[str]) -> None:
    """To a file of root's, to a name that is not there yet, to a folder; with owner and mode, or without."""
    (scene.his / "app.conf").symlink_to(scene.roots / target)
    scene.refused(scene.render(*words), f"{scene.his}/app.conf is a link")


def test_a_link_in_the_place_of_a_folder(scene: Scene, tmp_path: Path) -> None:
    """A folder of templates with a folder in it."""
    (scene.his / "sub").symlink_to(scene.roots)
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "passwd").write_text("evil")
    scene.refused(scene.render(template=source, to=scene.his), f"{scene.his}/sub is a link")
    scene.refused(scene.render(to=scene.his / "sub" / "passwd"), f"{scene.his}/sub is a link")
    scene.refused(scene.render(to=scene.his / "sub"), f"{scene.his}/sub is a link")


def test_a_link_of_roots_own_making_is_followed_where_only_root_could_make_it(
    scene: Scene, tmp_path: Path
) -> None:
    """`/var/run` is one. In his folder even root's own is not: he can move it."""
    (tmp_path / "link").symlink_to(scene.his)
    assert scene.render(to=tmp_path / "link" / "app.conf").returncode == 0
    assert (scene.his / "app.conf").read_text() == f"password={SECRET}"
    (scene.his / "roots").symlink_to(scene.roots)
    scene.refused(scene.render(to=scene.his / "roots" / "new"), f"{scene.his}/roots is a link")


def test_dots_go_back_the_way_we_came(scene: Scene) -> None:
    """Not where his folder is by now."""
    (scene.his / "a").mkdir()
    done = scene.render(to=scene.his / "a" / ".." / "app.conf")
    assert done.returncode == 0, done.stderr
    assert (scene.his / "app.conf").exists()


def test_in_a_folder_for_all_what_is_roots_is_roots(scene: Scene, tmp_path: Path) -> None:
    """With the sticky bit, as /tmp: a link of root's is followed, one of his is not; a new file can be made."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "roots").symlink_to(scene.roots)
    assert scene.render(to=shared / "new").returncode == 0
    assert scene.render(to=shared / "roots" / "other").returncode == 0
    (scene.roots / "other").unlink()
    (shared / "his").symlink_to(scene.precious)
    os.lchown(shared / "his", HIS, HIS)
    scene.refused(scene.render(to=shared / "his"), f"{shared}/his is a link")


def test_a_source_that_is_a_link_of_his_is_not_read(scene: Scene, tmp_path: Path) -> None:
    """He would read root's file in what root writes, or find it in the environment."""
    (scene.roots / "passwd").chmod(0o600)
    (scene.his / "template").symlink_to(scene.precious)
    for words in (
        ["--template", f"{scene.his}/template:{tmp_path}/out"],
        ["--template", f"{scene.his}:{tmp_path}/out"],
        ["--env-file", f"{scene.his}/template"],
    ):
        done = subprocess.run(
            [*COMMAND, *words, "true"], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert done.returncode == 2
        assert f"{scene.his}/template is a link" in done.stderr
        assert not (tmp_path / "out").exists()


# -- swapping ---------------------------------------------------------------------------------------------------------------

SWAP = """
import os, sys
os.chdir(sys.argv[1]); os.setgroups([]); os.setgid({his}); os.setuid({his})
os.mkdir("real"); os.symlink(sys.argv[2], "link"); os.symlink(sys.argv[2] + "/passwd", "filelink")
print("ready", flush=True)
while True:
    for other, name in (("link", "sub"), ("real", "sub"), ("filelink", "app.conf")):
        try:
            os.rename(name, "spare")
        except OSError: pass
        try:
            os.rename(other, name)
        except OSError: pass
        try:
            os.rename(name, other)
        except OSError: pass
        try:
            os.rename("spare", name)
        except OSError: pass
    for name in os.listdir("."):
        if name.endswith(".partial"):
            try: os.rename(name, "stolen")
            except OSError: pass
            try: os.symlink(sys.argv[2], name)
            except OSError: pass
            try: os.unlink(name)
            except OSError: pass
"""


@contextmanager
def swapping(scene: Scene) -> Iterator[None]:
    """His process swaps links with files and folders, and steals what root is writing, as fast as it can."""
    command = [sys.executable, "-c", SWAP.format(his=HIS), str(scene.his), str(scene.roots)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


RENDER_OFTEN = """
import os, sys
from cleanup_guard._cli._templates import Rendering
from cleanup_guard._cli._words import Mistake
from cleanup_guard._exec.write import Attributes
done = refused = 0
for _ in range(int(sys.argv[1])):
    for word in sys.argv[2:]:
        rendering = Rendering(os.environ)
        try:
            rendering.add(word); rendering.check(); rendering.write(Attributes(0o600, None), str)
            done += 1
        except Mistake: refused += 1
print(done, refused)
"""


@pytest.mark.parametrize("rounds", [100, pytest.param(5000, marks=pytest.mark.nightly)])
def test_links_that_are_swapped_while_root_writes(scene: Scene, rounds: int) -> None:
    """Either it is written into what is his, or it is refused; root's folder is as it was, and no descriptor is left."""
    words = [f"{scene.template}:{scene.his}/app.conf", f"{scene.template}:{scene.his}/sub/passwd"]
    with swapping(scene):
        ended = subprocess.run(
            [sys.executable, "-c", RENDER_OFTEN, str(rounds), *words],
            env={**os.environ, "PASSWORD": SECRET},
            capture_output=True,
            text=True,
            check=False,
            timeout=20 * PATIENCE,
        )
    assert ended.returncode == 0, ended.stderr
    assert sum(map(int, ended.stdout.split())) == 2 * rounds
    scene.untouched()


# -- what is planted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o666, 0o6777, 0o4755])
def test_a_planted_file_gives_neither_mode_nor_owner(scene: Scene, mode: int) -> None:
    """It is root's, with the template's permissions, and not what he had opened before."""
    planted = scene.his / "app.conf"
    planted.write_text("")
    os.chown(planted, HIS, HIS)
    planted.chmod(mode)
    with planted.open() as his:
        assert scene.render().returncode == 0
        assert his.read() == ""
    status = planted.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o640)


def test_set_id_bits_are_only_set_if_they_were_asked_for(scene: Scene) -> None:
    """Not taken from a template, which he may have made."""
    scene.template.chmod(0o4755)
    scene.render()
    assert stat.S_IMODE((scene.his / "app.conf").stat().st_mode) == 0o755
    scene.render("--mode", "4711", "--owner", "1:1")
    status = (scene.his / "app.conf").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (1, 0o4711)


def test_a_hard_link_to_roots_file_is_replaced_and_not_written_through(scene: Scene) -> None:
    """The name in his folder is another file afterwards."""
    os.link(scene.precious, scene.his / "app.conf")
    assert scene.render("--owner", str(HIS), "--mode", "666").returncode == 0
    scene.untouched()


def test_a_hard_link_as_a_template_is_not_read(scene: Scene, tmp_path: Path) -> None:
    """It is root's secret by another name."""
    os.link(scene.precious, scene.his / "template")
    done = scene.render(template=scene.his / "template", to=tmp_path / "out")
    (scene.his / "template").unlink()
    assert f"{scene.his}/template has another name" in done.stderr
    scene.refused(done, "a hard link")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", ["destination", "template", "env-file", "folder"])
def test_a_fifo_of_his_does_not_make_root_wait(scene: Scene, tmp_path: Path, which: str) -> None:
    """Nobody is at its other end."""
    fifo = scene.his / "app.conf"
    os.mkfifo(fifo)
    os.chown(fifo, HIS, HIS)
    if which == "destination":
        scene.refused(scene.render(), f"{fifo} is no plain file")
    elif which == "env-file":
        scene.refused(scene.render("--env-file", str(fifo), to=tmp_path / "out"), f"{fifo} is no plain file")
    else:
        done = scene.render(template=fifo if which == "template" else scene.his, to=tmp_path / "out")
        assert done.returncode == 2
        assert f"{fifo} cannot be read: " in done.stderr


@pytest.mark.parametrize("name", ["a\nkilled", "a\x1b[31mb", "\udcff", "a b;rm -rf $HOME", "-rf", "x" * 255])
def test_hostile_names_are_names(scene: Scene, tmp_path: Path, name: str) -> None:
    """In a folder of templates that is his: they are written as they are, and forge nothing in a message."""
    (scene.his / name).write_text("$PASSWORD")
    done = scene.render(template=scene.his, to=tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / name).read_text() == SECRET
    (scene.his / name).write_text("$MISSING")
    done = scene.render(template=scene.his, to=tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.rstrip("\n").isprintable()


# -- what is left when root is killed ---------------------------------------------------------------------------------------

WATCHED = """
import os, sys
folder = sys.argv[1]
os.setgroups([]); os.setgid({his}); os.setuid({his})
print("ready", flush=True)
while True:
    for place, folders, names in os.walk(folder):
        for name in names:
            try: content = open(os.path.join(place, name), "rb").read()
            except OSError: continue
            if b"hunter2" in content: print(os.path.join(place, name), flush=True)
"""


@pytest.mark.parametrize("rounds", [20, pytest.param(100, marks=pytest.mark.nightly)])
def test_a_sigkill_in_the_middle_leaves_nothing_that_others_can_read(scene: Scene, rounds: int) -> None:
    """He reads all that is in his folder, all the time, and gets nothing of a file that is only root's."""
    scene.template.write_text(f"password=$PASSWORD {'x' * 100_000}\n")
    scene.template.chmod(0o600)
    watch = [sys.executable, "-c", WATCHED.format(his=HIS), str(scene.his)]
    env = {**os.environ, "PASSWORD": SECRET}
    word = f"{scene.template}:{scene.his}/app.conf"
    with subprocess.Popen(watch, stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == b"ready\n"
        for step in range(rounds):
            command = [sys.executable, "-c", RENDER_OFTEN, "100000", word]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env) as writer:
                while not (scene.his / "app.conf").exists():
                    assert writer.poll() is None
                for _ in range(step * 997):
                    pass
                writer.kill()
            (scene.his / "app.conf").unlink()
            for left in scene.his.iterdir():
                assert left.name.endswith(".partial")
                assert stat.S_IMODE(left.stat().st_mode) == 0o700
        watcher.kill()
        assert watcher.stdout.read() == b""
    assert watcher.returncode == -signal.SIGKILL


# -- modules ----------------------------------------------------------------------------------------------------------------

PLANTED = (
    *(
        "__future__",
        "_ctypes",
        "argparse",
        "errno",
        "fcntl",
        "grp",
        "jinja2",
        "json",
        "os",
        "pwd",
        "random",
        "re",
    ),
    *("signal", "stat", "string", "subprocess", "termios", "textwrap", "typing_extensions"),
)


@pytest.mark.parametrize(
    "words", ["--help", "--version", "bogus", "exec --help", "run --help", "exec", "run", "check"]
)
@pytest.mark.parametrize("command", ["cleanup-guard", "module"])
def test_nothing_is_imported_from_where_others_can_write(tmp_path: Path, words: str, command: str) -> None:
    """Modules in the current folder, in PYTHONPATH, in a plain user's site-packages below HOME."""
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    his = tmp_path / "home" / ".local" / "lib" / minor / "site-packages"
    his.mkdir(parents=True)
    for name in PLANTED:
        for folder in (tmp_path, his):
            (folder / f"{name}.py").write_text(f"import sys; sys.stderr.write('PLANTED {name}')")
    (tmp_path / "t").write_text("$HOME")
    full = {
        "exec": ["exec", "--user", "0", "--no-new-privs", "--template", "t:out", "--", "true"],
        "run": ["run", "--", "true"],
        "check": ["check", "--after", "0", "--", "sleep", "9"],
    }
    start = (
        [str(Path(sys.executable).parent / "cleanup-guard")] if command == "cleanup-guard" else [*COMMAND[:3]]
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "home"), "PYTHONNOUSERSITE": ""}
    done = subprocess.run(
        [*start, *full.get(words, words.split())],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=env,
        timeout=PATIENCE,
    )
    assert "PLANTED" not in done.stderr
    assert "Traceback" not in done.stderr

"""Any bytes for every parser of `exec`: an exception that is not the one documented sentence is a failure.

Seconds in `make test`; in `make nightly` until it has been an hour, or as long as CLEANUP_GUARD_FUZZ_SECONDS says.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cleanup_guard._cli import _exec
from cleanup_guard._cli._templates import JINJA, Rendering, names
from cleanup_guard._cli._words import Mistake, Usage
from cleanup_guard._exec import identity, privileges, target, walk
from cleanup_guard._exec.write import Attributes

SECRET = "hunter2hunter2"

SLOW = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
]

text = st.text(st.characters(exclude_categories=()), max_size=40)
word = st.one_of(st.binary(max_size=40).map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))), text)
number = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.from_regex(r"[-+]?[0-9._eEx]{0,6}[0-9a-fxoO_ ]{0,6}", fullmatch=True),
    st.sampled_from(
        [
            "nan",
            "inf",
            "9" * 5000,
            "0" * 5000,
            "\u0663",
            "\xb2",
            "0x10",
            "0o17",
            "1_0",
            " 5 ",
            "",
            "4294967295",
        ]
    ),
)
user = st.one_of(word, number, st.builds("{}:{}".format, st.one_of(word, number), st.one_of(word, number)))


def option_values() -> st.SearchStrategy[str]:
    known = [
        "--",
        "-",
        "true",
        "sh",
        "0",
        "root",
        "root:root",
        "template:out",
        "env",
        "/",
        "A=1",
        "all",
        "net_raw",
        "inherit",
    ]
    return st.one_of(word, number, user, st.sampled_from(known))


def no_secret(mistake: Mistake) -> None:
    """A sentence says where, and no value."""
    assert SECRET not in str(mistake)


def try_user(text: str) -> None:
    try:
        identity.identity(*_exec._user_and_group(text))
        identity.owner(*_exec._user_and_group(text))
    except (ValueError, PermissionError):
        pass


def try_numbers(text: str) -> None:
    for parse in (_exec._number, lambda text: _exec._octal("--mode", text, _exec.MODE_BITS)):
        try:
            found = parse(text)
        except Mistake:
            continue
        assert found is not None
        assert found >= 0


def try_pass_fd(text: str) -> None:
    try:
        target.world(pass_fds=[_exec._number(text)])
    except (Mistake, ValueError):
        pass


def try_caps(text: str) -> None:
    try:
        privileges.Privileges(no_new_privs=False, drop_caps=text.split(","))
    except (ValueError, PermissionError):
        pass


def try_only(text: str) -> None:
    try:
        found = names(text)
    except Mistake:
        return
    assert all(name.isidentifier() and name.isascii() for name in found)


def try_path(text: str) -> None:
    try:
        with walk.walk(text) as place:
            assert place.folder >= 0
    except (OSError, ValueError, walk.Refused):
        pass


env_line = st.one_of(
    st.binary(max_size=30),
    st.builds(lambda name, value: name + b"=" + value, st.binary(max_size=10), st.binary(max_size=20)),
    st.sampled_from(
        [b"#x", b"", b"  A=1", SECRET.encode(), b"\xef\xbb\xbfB=2", b"A\0=1", b"A=\0", b"=" + SECRET.encode()]
    ),
)
env_file = st.builds(
    lambda lines, end: end.join(lines),
    st.lists(env_line, max_size=8),
    st.sampled_from([b"\n", b"\r\n", b"\r", b"\0", b"\x85"]),
)


def try_env_file(content: bytes) -> None:
    Path("env").write_bytes(content)
    try:
        found = _exec.read_env_file("env")
    except Mistake as mistake:
        no_secret(mistake)
        return
    for name, value in found.items():
        assert target._variable(name, value) == (name, value)


piece = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [
            b"$A",
            b"${A}",
            b"$$",
            b"$",
            b"${",
            b"}",
            b"${A:-",
            b"${NO:-",
            b"${NO?",
            b"${A:+",
            b"\xff",
            b"\0",
            b"\n",
            b"$NO",
        ]
    ),
    st.sampled_from(
        [b"{{", b"}}", b"{%", b"%}", b"{{ A }}", b"{{ NO }}", b"{% if A %}", b"{% endif %}", b"|int", b"{#"]
    ),
)


def try_template(parts: list[bytes]) -> None:
    for name in ("template", f"template{JINJA[0]}"):
        Path(name).write_bytes(b"".join(parts))
        rendering = Rendering({"A": SECRET})
        try:
            rendering.add(f"{name}:out")
            rendering.check()
            rendering.write(Attributes(None, None), lambda _: None)
        except Mistake as mistake:
            no_secret(mistake)
        else:
            assert Path("out").exists()


class Reached(Exception):
    """Everything was understood."""


def reach(*_: object) -> None:
    raise Reached


def try_command_line(words: list[str]) -> None:
    """Up to the exec, which is not done, and to the writing of files, which is only done here."""
    given, _ = known_options(words)
    for option, value in given:
        if option in ("--template", "--env-file") and value not in ("template:out", "env"):
            return
    err, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try:
            status = _exec.USAGE.main(words, _exec._prepare_and_exec)
        except Reached:
            return
    assert status in (0, 2, 126, 127)
    if status:
        last = err.getvalue().splitlines()[-1]
        assert last.startswith("cleanup-guard exec: ")
        assert last.isprintable()


def known_options(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    usage: Usage = _exec.USAGE
    try:
        return usage.split(words)
    except Mistake:
        return [], []


words = st.lists(
    st.one_of(
        option_values(),
        st.sampled_from(list(_exec.USAGE._known)),
        st.builds("{}={}".format, st.sampled_from(list(_exec.USAGE._known)), option_values()),
    ),
    max_size=7,
)

TARGETS: dict[str, tuple[st.SearchStrategy, Callable[..., None]]] = {
    "user": (user, try_user),
    "numbers": (number, try_numbers),
    "pass-fd": (number, try_pass_fd),
    "caps": (st.one_of(word, st.sampled_from(["all", "NET_RAW", "cap_setuid,kill", ","])), try_caps),
    "only": (st.one_of(word, st.sampled_from(["A,B", "$A ${B}", "${A", "$", "{A}"])), try_only),
    "path": (
        st.one_of(word, st.lists(st.sampled_from(["..", ".", "/", "a", "link", "loop"])).map("/".join)),
        try_path,
    ),
    "env-file": (env_file, try_env_file),
    "template": (st.lists(piece, max_size=12), try_template),
    "command-line": (words, try_command_line),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a template, an env file and links; the exec itself is not done, and nobody is given anything."""
    monkeypatch.chdir(tmp_path)
    Path("template").write_text("$HOME")
    Path("env").write_text("A=1")
    Path("link").symlink_to("a")
    Path("loop").symlink_to("loop")
    monkeypatch.setattr(target, "become", reach)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("here")
def test_any_input_is_understood_or_is_a_sentence(name: str) -> None:
    """The same inputs every time."""
    fuzz(name, settings(max_examples=150, deadline=None, suppress_health_check=SLOW))


@pytest.mark.nightly
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("here")
def test_any_input_for_hours(name: str) -> None:
    """New inputs every time."""
    end = time.monotonic() + float(os.environ.get("CLEANUP_GUARD_FUZZ_SECONDS", "3600")) / len(TARGETS)
    while time.monotonic() < end:
        fuzz(
            name,
            settings(
                max_examples=2000,
                deadline=None,
                database=None,
                derandomize=False,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=SLOW,
            ),
        )


def fuzz(name: str, how: settings) -> None:
    """Feed one parser."""
    strategy, attempt = TARGETS[name]

    @how
    @given(strategy)
    def one(value: object) -> None:
        attempt(value)

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    one()
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before, "descriptors were left open"

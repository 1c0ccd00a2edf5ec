"""Where an `exec` belongs in a script, and where it would lose something; a guard above main()."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_guard._rehearse import _python, _script

quick = settings(max_examples=50, deadline=None)

BECOMES = [
    ('#!/bin/sh\nset -e\n"$@"\n', ["./app"], 'exec "$@"', 3),
    ("#!/bin/sh\necho prep\ngosu nobody ./app\n", ["gosu", "nobody", "./app"], "exec gosu nobody ./app", 3),
    ("env A=1 nice -n 5 ./app > log 2>&1", ["env", "A=1"], "exec env A=1 nice -n 5 ./app > log 2>&1", 1),
    ("A=1 B='x y' app --z", ["/usr/bin/app", "--z"], "A=1 B='x y' exec app --z", 1),
    ("migrate && app", ["app"], "migrate && exec app", 1),
    ("ready || exit 1; app", ["app"], "ready || exit 1; exec app", 1),
    ("app \\\n  --one \\\n  --two\n", ["app"], "exec app \\\n  --one \\\n  --two", 1),
    ("app\nexit $?\n", ["app"], "exec app", 1),
    ("app &\nwait\n", ["app"], "exec app", 1),
    ("app & child=1\nwait $child", ["app"], None, 0),
    ("if true; then\n  echo x\nfi\ncase $1 in a|b) c ;; (d) e ;; esac\n$CMD\n", ["x"], "exec $CMD", 5),
    ("f() {\n  app\n}\nf", ["app"], None, 0),
    ("f() { echo; }\ncat <<EOF\napp\nEOF\n./app.sh", ["/bin/sh", "./app.sh"], "exec ./app.sh", 5),
    ("cat <<-'EOF'\n\tapp\n\tEOF\napp", ["app"], "exec app", 4),
    ("while ! nc -z db 5432; do sleep 1; done < /dev/null\napp", ["app"], "exec app", 2),
    ("for i in 1 2; do\n  app\ndone", ["app"], None, 0),
    ("echo $((1 << 3)) $(cat <<EOF\nEOF\n)\napp", ["app"], "exec app", 4),
    ("# app\n[ -n \"$(date; echo ')')\" ] && X=1\napp # the program\n", ["app"], "exec app # the program", 3),
    ("app && echo upload", ["app"], None, 0),
    ("app; rm lock", ["app"], None, 0),
    ("app | tee log", ["app"], None, 0),
    ("trap 'echo bye' TERM\napp", ["app"], None, 0),
    ("trap 'echo bye' EXIT\napp", ["app"], None, 0),
    ("(app; echo over)\necho over", ["app"], None, 0),
    ("app &\n", ["app"], None, 0),
    ("echo 'not closed\napp", ["app"], None, 0),
    ("other", ["app"], None, 0),
    ("$A\n$B\n", ["app"], "exec $B", 2),
    ("$A\necho\n", ["app"], None, 0),
]


@pytest.mark.parametrize(("text", "argv", "line", "number"), BECOMES, ids=[each[0] for each in BECOMES])
def test_where_an_exec_belongs(text: str, argv: list[str], line: str | None, number: int) -> None:
    """Before the program, if the script does nothing after it, has no trap, and no compound command is around it."""
    found = _script.with_exec(text, argv)
    assert (found and (found.line, found.number)) == (line and (line, number))
    if found is not None:
        subprocess.run(["sh", "-n"], input=found.text, text=True, check=True)


def test_what_comes_after_is_noticed() -> None:
    """Be it in the same line or in the next; an exit with the program's own status is nothing."""
    assert _script.comes_after("app && echo upload", ["app"])
    assert _script.comes_after("app\nrm lock\n", ["app"])
    assert not _script.comes_after("prep; app\nexit\n", ["app"])


def test_a_line_on_top_is_below_the_first_one() -> None:
    """Below #! and comments, before all that is done."""
    edit = _script.with_line_on_top("#!/bin/sh\n# what it does\nset -e\napp\n", "trap : TERM")
    assert edit.text == "#!/bin/sh\n# what it does\ntrap : TERM\nset -e\napp\n"
    assert edit.number == 3


@quick
@given(st.text("abc $(){}'\"`\\\n;&|<>#=!", max_size=60) | st.text(max_size=40))
def test_whatever_the_script_is(text: str) -> None:
    """It is understood or not, and nothing else happens."""
    _script.with_exec(text, ["a"])
    _script.comes_after(text, ["a"])
    _script.has_trap(text)
    _script.with_line_on_top(text, "trap : TERM")


GUARDED = [
    ("def main(): ...\n", "from cleanup_guard import guard\n@guard(grace=3)\ndef main(): ...\n"),
    (
        "@x\nasync def main(): ...",
        "from cleanup_guard import guard\n@guard(grace=3)\n@x\nasync def main(): ...",
    ),
    ("@guard\ndef main(): ...\n", "@guard()\ndef main(): ...\n"),
    ("@x\n@cg.guard(\n  grace=9,\n)\ndef main(): ...\n", "@x\n@cg.guard(grace=9)\ndef main(): ...\n"),
    ("def other(): ...", None),
    ("def main(: ...", None),
    ("\0", None),
]


@pytest.mark.parametrize(("text", "after"), GUARDED)
def test_a_guard_above_main(text: str, after: str | None) -> None:
    """A new one has the grace period; one that is there keeps what it was given."""
    edit = _python.guarded(text, {}, {"grace": "3"})
    assert (edit and edit.text) == after


def test_a_guard_that_listens_to_more() -> None:
    """The signals are named as Python names them, and what that needs is imported above all decorators."""
    edit = _python.guarded("@x\n@guard(grace=9)\ndef main(): ...\n", {"signals": "(signal.SIGQUIT,)"}, {})
    assert edit is not None
    assert edit.text == "import signal\n@x\n@guard(grace=9, signals=(signal.SIGQUIT,))\ndef main(): ...\n"
    assert edit.line == "@guard(grace=9, signals=(signal.SIGQUIT,))"


@pytest.mark.parametrize(
    ("path", "theirs"),
    [
        ("/app/main.py", True),
        ("/home/me/x/app.py", True),
        ("/usr/bin/celery", False),
        ("/venv/bin/gunicorn", False),
        ("/app/.venv/lib/python3.13/site-packages/x/__main__.py", False),
    ],
)
def test_whose_file_it_is(path: str, theirs: bool) -> None:
    """Nobody is told to edit what was installed."""
    assert _python.is_the_users(path) is theirs

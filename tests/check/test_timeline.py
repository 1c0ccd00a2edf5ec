"""A rehearsal as text, and the words and rows that it shares with the picture."""

from __future__ import annotations

import re
import unicodedata

import pytest
from check.rehearsals import HOSTILE, clean, killed, many, rehearsals, torn_down
from hypothesis import HealthCheck, given, settings

from cleanup_guard._rehearse import _words
from cleanup_guard._rehearse._seen import Advice, Heard, Rehearsal, Seen
from cleanup_guard._rehearse._timeline import timeline
from cleanup_guard._rehearse._words import Scale, cells

quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
COLOURS = re.compile(r"\033\[[0-9;]*m")


def plain(rehearsal: Rehearsal, **options: bool) -> str:
    return timeline(rehearsal, colour=False, **options)


def row_of(pid: int, text: str) -> str:
    (found,) = (line for line in text.splitlines() if line.split()[:1] == [str(pid)])
    return found


# -- what it says -------------------------------------------------------------------------------------------------


def test_a_row_tells_who_what_and_how() -> None:
    """A row has the pid, the short command, what is done with the signal, and how and when it ended."""
    text = plain(torn_down())
    assert re.fullmatch(r" +1 python3 main\.py +catches ●━+┫ exited 0 at 1\.2 s", row_of(1, text))
    assert re.fullmatch(r" +8 └ python3 worker\.py +catches ●?━+●?━*✖ +torn down at 0\.60 s", row_of(8, text))
    assert re.fullmatch(r" +9 └ nginx: master process +catches ━*○━*┫ +SIGTERM at 0\.30 s", row_of(9, text))
    assert _words.TORN_DOWN in " ".join(text.splitlines())


def test_the_frame_tells_what_was_done() -> None:
    """The title has the program, the next line the signal, where it was PID 1 and the grace period; the verdict has a mark."""
    lines = plain(clean()).splitlines()
    assert lines[0] == "Stop of python3 main.py"
    assert lines[1] == "Ready after 0.60 s; SIGTERM to PID 1 of a PID namespace; SIGKILL 10 s later"
    assert lines[-1] == "✔ clean: all 3 processes ended within 1.2 s of 10 s; exit status 0"


def test_an_image_is_named() -> None:
    """A rehearsed image is named, with its command if it has one."""
    found = clean()
    found.image, found.isolation = "nginx:1.27", "container"
    assert plain(found).splitlines()[0] == "Stop of image nginx:1.27: python3 main.py"
    found.program = []
    assert plain(found).splitlines()[0] == "Stop of image nginx:1.27"
    assert "PID 1 of the container" in plain(found)


def test_a_remark_is_told() -> None:
    """What differs from a real container is said."""
    found = clean()
    found.remark = "it was not PID 1"
    assert "(it was not PID 1)" in plain(found).splitlines()


def test_advice_comes_with_the_line_that_fixes_it() -> None:
    """The line is on a line of its own and whole, however long; a fault and a remark have different marks."""
    found = killed()
    line = f"exec {'x' * 200}"
    text = plain(found).replace("exec python3 /app/main.py", line)
    assert f"\n      {line}\n" in text
    assert "▸ `sh` (PID 1) does not forward SIGTERM." in text
    assert "▹ It was close." in text


def test_only_what_is_there_is_explained() -> None:
    """The legend has no word for what cannot be seen."""
    text = plain(clean())
    assert "● SIGTERM came; ○ SIGQUIT came\n" in text
    assert "✖" not in text
    assert "torn down" not in text


def test_colour_adds_nothing_but_colour() -> None:
    """Without the escape sequences of colour, it is the text without colour."""
    for rehearsal in (clean(), killed(), torn_down()):
        assert COLOURS.sub("", timeline(rehearsal, colour=True)) == plain(rehearsal)


def test_ascii_where_there_is_no_more() -> None:
    """Without Unicode there is none, and the columns still stand."""
    found = killed()
    found.processes[1].argv = ["名前", "e\u0301"]
    text = plain(found, unicode=False)
    assert text.isascii()
    assert [len(row_of(pid, text).partition("KILLED")[0]) for pid in (1, 7)] == [
        len(row_of(1, text).partition("KILLED")[0])
    ] * 2


# -- the bars -----------------------------------------------------------------------------------------------------


def bar_of(pid: int, text: str) -> tuple[int, int]:
    """The first and the last cell of a bar."""
    drawn = row_of(pid, text)
    at = [index for index, each in enumerate(drawn) if each in "━┫✖●○"]
    return at[0], at[-1]


def test_bars_are_to_scale() -> None:
    """A process that ended after half the time has half the bar, one that was born later begins later."""
    found = clean()
    found.processes[2].born = 0.15
    text = plain(found)
    start, end = bar_of(1, text)
    assert bar_of(8, text)[0] == start
    assert bar_of(8, text)[1] - start == pytest.approx((end - start) / 2, abs=1)
    assert bar_of(9, text)[0] - start == pytest.approx((end - start) / 8, abs=1)


def test_the_axis_ends_with_what_happened() -> None:
    """Not at the end of a grace period that nobody came near to; else at that, with a mark on the axis."""
    assert _words.scale(clean()) == Scale(1.2, None)
    assert _words.scale(killed()) == Scale(10.1, 10.0)
    slow = clean()
    slow.processes[0].ended = 7.0
    assert _words.scale(slow) == Scale(10.0, 10.0)
    assert any("┬" in line and "✖" in line for line in plain(slow).splitlines())


@pytest.mark.parametrize("end", [0.001, 0.02, 0.9, 1.37, 9.99, 10.0, 59.0, 3600.0, 1e7])
@pytest.mark.parametrize("most", [1, 2, 5, 20])
def test_ticks_are_round_and_few(end: float, most: int) -> None:
    """Ticks begin at 0, never pass the end, are no more than asked for, and say so in few characters."""
    ticks = Scale(end, None).ticks(most)
    assert ticks[0] in {(0.0, "0 s"), (0.0, "0 ms")}
    assert len(ticks) <= most
    assert all(0 <= moment <= end for moment, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks)
    assert all(len(label.strip("0").replace(".", "")) <= 3 for _, label in ticks[1:])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (-1, "0 s"), (0.0001, "<1 ms"), (0.004, "4 ms"), (0.0996, "0.10 s"), (0.41, "0.41 s"), (0.996, "1.0 s"),
     (9.96, "10.0 s"), (99.96, "100 s"), (3600, "3600 s")],
)  # fmt: skip
def test_durations(value: float, text: str) -> None:
    """A duration has the digits that matter, and its unit."""
    assert _words.seconds(value) == text


# -- commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "(no command line)"),
        (["", ""], "(no command line)"),
        (
            ["/usr/local/bin/python3.13", "-u", "/srv/app/main.py", "--port", "80"],
            "python3.13 -u main.py --port 80",
        ),
        (["/bin/sh", "-c", "exec /usr/bin/foo\n  --bar"], "sh -c exec /usr/bin/foo --bar"),
        (["./entry.sh", "../conf/", "https://x/y"], "entry.sh conf https://x/y"),
        (["postgres: writer process   "], "postgres: writer process"),
        (["find", "/"], "find /"),
        (["a\x1b[31mb\x7f\u202e"], "a?[31mb??"),
    ],
)
def test_short_commands(argv: list[str], text: str) -> None:
    """A command is what a person would say: no folders, one line, nothing unprintable."""
    assert _words.command(argv) == text


def test_text_is_cut_by_cells() -> None:
    """Wide characters count two, combining ones none, and no letter carries hundreds of those."""
    assert cells("名e\u0301x") == 4
    assert _words.cut("名前名前", 5) == "名前…"
    assert _words.cut("abc", 3) == "abc"
    assert len(_words.cut("e" + "\u0301" * 1000, 10)) <= 41


# -- rows ---------------------------------------------------------------------------------------------------------


def test_those_who_are_alike_share_a_row() -> None:
    """With more than twenty rows, those that are alike share one, which ends when the last of them did."""
    rows = _words.rows(many(40))
    assert [row.label for row in rows] == ["python3 main.py", "worker", "39 more like this"]
    assert rows[2].ended == pytest.approx(39 / 40)
    assert " └ 39 more like this catches" in plain(many(40))
    assert len(_words.rows(many(19))) == 20


def test_those_who_differ_do_not_share_a_row() -> None:
    """The one worker that was killed is shown; of those who do not fit, the number is told, and who was killed comes first."""
    found = many(40)
    found.processes[30].how = "killed"
    assert [row.pid for row in _words.rows(found) if row.how == "killed"] == ["31"]
    for seen in found.processes:
        seen.argv = [f"program-{seen.pid}"]
    rows = _words.rows(found)
    assert len(rows) == 20
    assert "31" in [row.pid for row in rows]
    assert rows[-1].label == "22 more"
    assert rows[-1].ending == "exited 0"


def test_children_stand_below_their_parents() -> None:
    """The rows follow the tree, and its depth is bounded."""
    chain = clean()
    chain.processes = [Seen(pid, pid - 1, ["x"]) for pid in range(1, 15)]
    assert [row.depth for row in _words.rows(chain)] == [*range(6), *[6] * 8]
    tree = clean()
    tree.processes = [Seen(1, 0, ["a"]), Seen(2, 1, ["b"]), Seen(3, 1, ["c"]), Seen(4, 2, ["d"])]
    assert [(row.label, row.depth) for row in _words.rows(tree)] == [("a", 0), ("b", 1), ("d", 2), ("c", 1)]


def test_a_pid_that_is_used_again() -> None:
    """A process that is its own grandparent by number hangs nothing."""
    found = clean()
    found.processes = [Seen(1, 2, ["a"]), Seen(2, 1, ["b"]), Seen(1, 2, ["c"]), Seen(1, 1, ["d"])]
    assert [(row.label, row.depth) for row in _words.rows(found)] == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]


# -- whatever comes -----------------------------------------------------------------------------------------------


@quick
@given(rehearsals)
def test_every_process_is_in_one_row(rehearsal: Rehearsal) -> None:
    """Nobody is left out, and nobody is counted twice."""
    rows = _words.rows(rehearsal)
    assert len(rows) <= _words.MOST
    shown = [id(seen) for row in rows for seen in row.of]
    assert sorted(shown) == sorted(id(seen) for seen in rehearsal.processes)


@quick
@given(rehearsals)
def test_no_line_is_too_wide(rehearsal: Rehearsal) -> None:
    """No line is wider than 80 cells, but for those that fix something; nothing unprintable gets through; twice is the same."""
    for unicode in (True, False):
        text = plain(rehearsal, unicode=unicode)
        assert text == plain(rehearsal, unicode=unicode)
        assert not [each for each in text if unicodedata.category(each)[0] == "C" and each != "\n"]
        for line in text.split("\n"):
            assert cells(line) <= 80 or line.startswith(" " * 6)
        coloured = timeline(rehearsal, colour=True, unicode=unicode)
        assert COLOURS.sub("", coloured).split() == text.split()


def test_a_line_that_ends_in_a_space_which_is_not_ascii() -> None:
    """It is shown the same with and without colour, also where it becomes a question mark."""
    found = killed()
    found.advice = [Advice("exec", "Do this:", "0\N{NO-BREAK SPACE}", fault=False)]
    shown = timeline(found, colour=False, unicode=False)
    assert "0?" in shown.split()
    assert COLOURS.sub("", timeline(found, colour=True, unicode=False)).split() == shown.split()


@pytest.mark.parametrize("width", [1, 60, 81, 250])
def test_other_widths(width: int) -> None:
    """It takes the width that it is given, down to 60."""
    found = killed()
    found.processes[1].argv = HOSTILE * 20
    found.processes[1].heard = [Heard(each / 10, "SIGUSR1", 7) for each in range(100)]
    assert max(map(cells, timeline(found, colour=False, width=width).splitlines())) <= max(60, width)


def test_all_within_a_millisecond() -> None:
    """A stop that took no time has bars, too."""
    found = clean()
    for seen in found.processes:
        seen.ended = 0.0004
        seen.heard = []
    assert "━┫" in row_of(1, plain(found))
    assert "exited 0 at <1 ms" in row_of(1, plain(found))

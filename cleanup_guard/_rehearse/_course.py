"""The course of a check: rehearse, judge, measure what it would need, and try what may be advised.

A line is advised when a rehearsal with it was clean, and had lost nothing of what was there before. Where one could not be
tried it is shown without that promise; where all that could be tried did not help, there is none.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if sys.platform != "linux":
    raise NotImplementedError("rehearsing a stop needs Linux")

from cleanup_guard._ground.foreign import shown
from cleanup_guard._rehearse import _engine, _image, _kinds, _words
from cleanup_guard._rehearse._engine import CannotRehearse, Ended, NotReady
from cleanup_guard._rehearse._remedies import Case, Remedy, remedies
from cleanup_guard._rehearse._seen import Rehearsal, Seen
from cleanup_guard._rehearse._untraced import time_untraced
from cleanup_guard._rehearse._verdict import RACES, Finding, judge, settle, start_up_race

if TYPE_CHECKING:
    from cleanup_guard._rehearse._engine import Waker
    from cleanup_guard._rehearse._plan import Plan
    from cleanup_guard._rehearse._seen import Advice, Possession

MOST_TRIES = 8
"""Rehearsals of lines that may be advised, for one stop."""

HELD_UP = 500
"""Times that a program was held up to be looked at from which on it is measured how long it takes when nobody does."""

UNMEASURED = {"too-slow", "does-not-forward"}
"""What may be a matter of time."""

WORK, TIMES = 15.0, 3.0
"""Seconds, and times the grace period, for which it is waited for those who were never told, but may end by themselves."""

OWN_TO_EACH = {"_", "SHLVL", "PWD", "OLDPWD", "HOSTNAME", "container_uuid"}
"""Variables that differ from start to start."""


@dataclass
class Tried:
    """What became of a plan that was tried: seconds, if it was clean and lost nothing; else None."""

    plan: Plan
    seconds: float | None
    could_be: bool
    codes: set[str] = field(default_factory=set[str])


class Course:
    """Rehearses one plan, and what follows from it.

    Args:
        waker: of this process.
        plan: what is asked for.
        tries: whether lines are tried before they are shown.
        allowed: codes that are no faults here.
    """

    def __init__(
        self, waker: Waker, plan: Plan, *, tries: bool, allowed: frozenset[str] = frozenset()
    ) -> None:
        self.plan = plan
        self._waker = waker
        self._tries = tries
        self._allowed = allowed
        self._tried: list[Tried] = []
        self._has_python: bool | None = None
        self._findings: dict[int, tuple[Plan, list[Finding]]] = {}

    # -- one stop ---------------------------------------------------------------------------------------------

    def once(self, plan: Plan | None = None) -> Rehearsal:
        """Rehearse one stop, and judge it.

        Raises:
            CannotRehearse: there was no stop to rehearse.
            Interrupted: we were told to stop ourselves.
        """
        plan = plan or self.plan
        found = self._run(plan)
        findings = judge(found, self._allowed)
        if any(each.code in UNMEASURED for each in findings):
            told = any(each.code == "too-slow" for each in findings)
            longest = plan.wish.timeout if told else min(plan.wish.timeout, max(WORK, TIMES * plan.grace))
            self._measure(plan, found, max(plan.grace, longest))
            findings = judge(found, self._allowed)
        self._findings[id(found)] = (plan, findings)
        return found

    def _run(self, plan: Plan) -> Rehearsal:
        if plan.image is not None:
            return _image.rehearse(self._waker, plan)
        return _engine.rehearse(self._waker, plan)

    def _measure(self, plan: Plan, found: Rehearsal, longer: float) -> None:
        """How long does it take when it may, and when nobody holds it up to look at it?"""
        self._waker.progress.trying = "a longer grace period"
        try:
            again = self._run(replace(plan, grace=longer))
            found.tried = longer
            judge(again, self._allowed)
            if again.clean:
                found.needed = again.seconds
            if found.events > HELD_UP and found.isolation == "pid-namespace":
                self._waker.progress.trying = "without looking"
                found.untraced = time_untraced(self._waker, plan)
        except CannotRehearse:
            pass  # a second start failed: then it is not known, which is no reason to forget the first
        finally:
            self._waker.progress.trying = ""

    def blame_the_start(self, found: Rehearsal) -> None:
        """The same program stops well when it is ready: where a handler was missing here, it was missing only yet."""
        plan, findings = self._findings[id(found)]
        blamed = [start_up_race(found) if each.code in RACES else each for each in findings]
        settle(found, [each.advice() for each in blamed])
        self._findings[id(found)] = (plan, blamed)

    # -- what to do about it ----------------------------------------------------------------------------------

    def advise(self, found: Rehearsal) -> None:
        """Find the lines that help, and have them in the advice of this rehearsal.

        Raises:
            Interrupted: we were told to stop ourselves.
        """
        plan, findings = self._findings[id(found)]
        settle(found, [self._advice(Case(each, found, plan)) for each in findings])

    def _advice(self, case: Case) -> Advice:
        """What to say about one thing that was found, and the best line for it."""
        fallback: Remedy | None = None
        failed = 0
        for remedy in remedies(case):
            if not self._tries:
                return case.finding.advice(remedy.hint, remedy.line, where=remedy.where)
            tried = self._try(case, remedy)
            if tried.seconds is not None and case.finding.code not in tried.codes:
                return case.finding.advice(remedy.hint, remedy.line, tried.seconds, remedy.where)
            failed += tried.could_be
            if not tried.could_be and fallback is None:
                fallback = self._without_promise(remedy)
        if fallback is not None:
            return case.finding.advice(fallback.hint, fallback.line, where=fallback.where)
        return case.finding.advice(
            f"{case.finding.hint} (no line that was tried is enough)" if failed else None
        )

    def _without_promise(self, remedy: Remedy) -> Remedy | None:
        """As it may be shown though it could not be tried; in an image without Python what is ours is of no use."""
        image = self.plan.image
        if image is None or not remedy.needs_us:
            return remedy
        if self._has_python is None:
            self._has_python = _image.has_python(image)
        line = f"{remedy.line}\nRUN pip install cleanup-guard"
        return replace(remedy, line=line) if self._has_python else None

    def _try(self, case: Case, remedy: Remedy) -> Tried:
        """Rehearse it with this remedy, if that has not been done."""
        known = next((each for each in self._tried if each.plan == remedy.plan), None)
        if known is not None:
            return known
        tried = Tried(remedy.plan, None, could_be=False)
        if len(self._tried) < MOST_TRIES:
            self._waker.progress.trying = shown(remedy.line.partition("\n")[0], limit=50)
            tried = self._rehearse(case.rehearsal, remedy.plan)
            self._waker.progress.trying = ""
            self._tried.append(tried)
        return tried

    def _rehearse(self, before: Rehearsal, plan: Plan) -> Tried:
        try:
            after = self._run(plan)
        except (Ended, NotReady):
            return Tried(plan, None, could_be=True)  # it has broken the program
        except CannotRehearse:
            return Tried(plan, None, could_be=False)
        codes = {each.code for each in judge(after, self._allowed)}
        helped = after.clean and not loses(before, after)
        return Tried(plan, after.seconds if helped else None, could_be=True, codes=codes)

    # -- where there was no stop ------------------------------------------------------------------------------

    def explain(self, error: CannotRehearse) -> str:
        """What else there is to say when there was no stop to rehearse, and a line that helps, if one does."""
        if self.plan.image is not None:
            return ""
        if isinstance(error, Ended) and error.status == 0 and error.orphans:
            return self._in_the_background(error.orphans)
        if isinstance(error, NotReady) and self._tries and not _kinds.ours(self.plan.program):
            return self._under_a_parent()
        return ""

    def _in_the_background(self, orphans: list[Seen]) -> str:
        name = shown(_kinds.name(orphans[0].argv))
        text = f"it has left `{name}` in the background, and a container ends with its first process: keep it in the foreground"
        server = _kinds.base(self.plan.program)
        away = BACKGROUND.get(server, set())
        words = [word for word in self.plan.program if word not in away] + FOREGROUND.get(server, [])
        return text if words == self.plan.program else self._promise(text, words)

    def _under_a_parent(self) -> str:
        text = "it becomes ready when it is not PID 1, so give it a parent"
        case = Case(Finding("never-told", ""), _nothing_seen(self.plan), self.plan)
        for remedy in remedies(case):
            found = self._rehearse(_nothing_seen(self.plan), remedy.plan).seconds
            if found is not None:
                return f"{text}:\n  {shown(remedy.line, limit=None)}   # {_promised(found)}"
        return ""

    def _promise(self, text: str, words: list[str]) -> str:
        line = shown(shlex.join(words), limit=None)
        if not self._tries:
            return f"{text}:\n  {line}"
        tried = self._rehearse(_nothing_seen(self.plan), replace(self.plan, program=words))
        return text if tried.seconds is None else f"{text}:\n  {line}   # {_promised(tried.seconds)}"


FOREGROUND = {
    "apache2": ["-D", "FOREGROUND"], "crond": ["-f"], "cron": ["-f"], "dnsmasq": ["-k"], "exim4": ["-bdf"], "haproxy": ["-db"],
    "httpd": ["-D", "FOREGROUND"], "lighttpd": ["-D"], "named": ["-f"], "nginx": ["-g", "daemon off;"],
    "redis-server": ["--daemonize", "no"], "rsyslogd": ["-n"], "sshd": ["-D"], "squid": ["-N"], "supervisord": ["-n"],
    "vsftpd": ["-obackground=NO"], **{f"php-fpm{version}": ["-F"] for version in ("", "8", "8.2", "8.3", "8.4")},
}  # fmt: skip
"""What keeps a server where it was started."""

BACKGROUND = {
    "celery": {"--detach", "-D"}, "gunicorn": {"--daemon", "-D"}, "haproxy": {"-D"}, "memcached": {"-d", "--daemon"},
    "redis-server": {"--daemonize", "yes"}, "uwsgi": {"-d"},
}  # fmt: skip
"""What sends one away."""


def _promised(seconds: float) -> str:
    return f"tried: clean after {_words.seconds(seconds)}"


def _nothing_seen(plan: Plan) -> Rehearsal:
    return Rehearsal(
        plan.program, None, "SIGTERM", plan.grace, "simulated", processes=[Seen(1, 0, plan.program)]
    )


# -- what a line must not lose --------------------------------------------------------------------------------------------


def loses(before: Rehearsal, after: Rehearsal) -> bool:
    """Whether a program that was there is there no more as it was: as the same user, in the same environment."""
    had = {seen.has.file: seen.has for seen in before.processes if seen.has is not None and _matters(seen)}
    have = [seen.has for seen in after.processes if seen.has is not None]
    for file, one in had.items():
        same = [other for other in have if other.file == file]
        if same and not any(_keeps(one, other) for other in same):
            return True
    return False


def _matters(seen: Seen) -> bool:
    return not (_kinds.is_shell(seen.argv) or _kinds.is_init(seen.argv) or _kinds.is_ours(seen.argv))


def _keeps(one: Possession, other: Possession) -> bool:
    kept = all(
        other.environ.get(name) == value for name, value in one.environ.items() if name not in OWN_TO_EACH
    )
    return kept and (one.user, one.nice) == (other.user, other.nice)

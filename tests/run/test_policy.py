"""The policy on fake processes and a fake clock: whatever happens, the budget holds and nobody is wronged."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import inf

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from run.trees import SIGCONT, US, Fake, Trees, play

from cleanup_guard._supervise._asking import AGAIN
from cleanup_guard._supervise._child import Child
from cleanup_guard._supervise._policy import Policy
from cleanup_guard._supervise._terms import Terms

GRACE = 10.0
KILL_AFTER = 0.9 * 9.0
KILL_BEFORE_CALLBACKS_AFTER = 0.7 * 9.0
STOP_AT = 101.0


def stop(
    *plan: Fake, scope: str = "tree", blind: bool = False, **terms: object
) -> tuple[Policy, Trees, float]:
    """Stop these processes. Returns the policy, the world, and the seconds that it took."""
    world = Trees(plan, blind=blind)
    for child in world.children:
        child.scope = scope  # type: ignore[assignment]
    policy = Policy(world.children, world, Terms(grace=GRACE, **terms))  # type: ignore[arg-type]
    return policy, world, play(policy, world, STOP_AT) - STOP_AT


def test_who_can_be_asked_is_asked_when_the_signal_arrives() -> None:
    """Before anybody is looked for or reaped; but not while requests still arrive, and not before those who need it."""
    plan = [Fake(), Fake(), Fake(catches=False)]
    world = Trees(plan)
    world.look = lambda: pytest.fail("somebody was looked for")  # type: ignore[method-assign]
    world.children[0].after = (world.children[1],)
    Policy(world.children, world, Terms(grace=GRACE)).signal(15, 100.0)
    assert [each.told_at for each in plan] == [[100.0], [], []]
    drained = [Fake()]
    world = Trees(drained)
    Policy(world.children, world, Terms(grace=GRACE, drain=1)).signal(15, 100.0)
    assert drained[0].told_at == []


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["tree", "group", "main", "main-then-group"]),
            st.sampled_from([None, 10]),
            st.sets(st.integers(0, 5)),
        ),
        max_size=6,
    ),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([{}, {15: 12}, {15: 0}]),
    st.booleans(),
)
def test_who_is_asked_at_once_was_foreseen(
    children: list[tuple[str, int | None, set[int]]], drain: float, rewrite: dict[int, int], blind: bool
) -> None:
    """Whom `run` tells before the policy has said so is who that asks at once, in its order, and with its signals.

    Who cannot be looked at is not.
    """
    world = Trees([Fake() for _ in children], blind=blind)
    for child, (scope, stop_signal, after) in zip(world.children, children, strict=True):
        child.scope = scope  # type: ignore[assignment]
        child.stop_signal = stop_signal
        child.after = tuple(world.children[each] for each in after if each < world.children.index(child))
    told: list[tuple[Child, int]] = []
    world.signal = lambda child, signum, *, to_group: (  # type: ignore[method-assign]
        None if to_group or signum == SIGCONT else told.append((child, signum))
    )
    policy = Policy(world.children, world, Terms(grace=GRACE, drain=drain, rewrite=rewrite))
    foreseen = policy.foresee(15)
    policy.signal(15, 100.0)
    assert foreseen == ([] if blind else told)


# -- told once --------------------------------------------------------------------------------------------------------


def test_a_wrapper_that_forwards_is_told_and_tells() -> None:
    """Sudo, timeout, uv run: below the one that catches, that one tells; two levels of them do no harm."""
    wrapper, another = Fake(forwards=True), Fake(parent=0, forwards=True)
    program = Fake(parent=1, takes=6)
    _, _, seconds = stop(wrapper, another, program)
    assert program.told_by == [another.pid]
    assert another.told_by == [wrapper.pid]
    assert program.status == 0
    assert 6 <= seconds < 6.1


def test_who_ignores_the_stop_after_it_has_caught_it_is_a_catcher_still() -> None:
    """`timeout` does, and many a cleanup: what is below it stays its own, and readers wait for what it has to say."""
    wrapper, program = Fake(forwards=True, deafens=True), Fake(parent=0, takes=3, busy=True, deafens=True)
    stop(wrapper, program)
    assert program.told_by == [wrapper.pid]
    app, tee = Fake(parent=0, takes=2, deafens=True), Fake(parent=0, catches=False, reads=1)
    stop(Fake(name="bash", catches=False), app, tee)
    assert not tee.told_at


def test_a_supervisor_below_us_tells_other_sessions_itself() -> None:
    """What supervisord and honcho have started is theirs, whatever session it is in, however long it takes."""
    program = Fake(parent=0, session=True, takes=7.5)
    stop(Fake(forwards=True), program)
    assert program.told_by == [1000]
    assert program.killed_at == inf


def test_who_loses_its_catcher_is_told_then() -> None:
    """A main that cleans up and leaves without a word to its workers: they are told when it has gone."""
    worker = Fake(parent=0, takes=1, busy=True)
    main = Fake(takes=1)
    _, _, seconds = stop(main, worker)
    assert worker.told_by == [US]
    assert worker.told_at == [main.ended_at]
    assert 2 <= seconds < 2.1


def test_who_was_told_by_a_catcher_that_left_at_once_is_not_told_again() -> None:
    """`trap 'kill $p; exit' TERM`: the program has run since, which it hardly would have by itself."""
    main, program = Fake(forwards=False), Fake(parent=0, takes=3)
    world = Trees([main, program])
    policy = Policy(world.children, world, Terms(grace=GRACE))
    tell = world.signal

    def tell_and_leave(child: Child, signum: int, *, to_group: bool) -> None:
        if signum == 15:
            world._tell(program, main.pid)
        tell(child, signum, to_group=to_group)

    world.signal = tell_and_leave  # type: ignore[method-assign]
    play(policy, world, STOP_AT)
    assert program.told_by == [main.pid]
    assert program.killed_at == inf


def test_who_has_not_run_since_the_stop_is_told_at_half_time() -> None:
    """A catcher that does not end and passes nothing on: who has not run at all has been told by nobody."""
    sleeper, runner = Fake(parent=0, takes=1), Fake(parent=0, takes=1, busy=True)
    policy, _, _ = stop(Fake(takes=inf), sleeper, runner)
    assert sleeper.told_by == [US]
    assert KILL_AFTER / 2 <= sleeper.told_at[0] - STOP_AT <= KILL_AFTER / 2 + 2 * AGAIN
    assert runner.told_by == []
    assert policy.status == 137


def test_who_is_told_in_turns_is_not_told_at_half_time() -> None:
    """As under supervisord, in series: whose turn comes after half of the time is told by it, and not by us before."""
    programs = [Fake(parent=0, session=True, takes=2.8), Fake(parent=0, session=True, takes=5)]
    policy, _, _ = stop(Fake(forwards=True, in_turns=True), *programs)
    assert [each.told_by for each in programs] == [[1000], [1000]]
    assert policy.status == 0


def test_whose_turn_does_not_come_is_told_before_it_is_too_late() -> None:
    """The one before it hangs: at three quarters of the time it is told by us, and can still clean up."""
    waits, hangs = Fake(parent=0, takes=1), Fake(parent=0, takes=inf)
    stop(Fake(forwards=True, in_turns=True), waits, hangs)
    assert waits.told_by == [US]
    assert KILL_AFTER * 3 / 4 <= waits.told_at[0] - STOP_AT <= KILL_AFTER * 3 / 4 + 2 * AGAIN
    assert (waits.killed_at, hangs.told_by) == (inf, [1000])


def test_a_manager_that_does_not_catch_is_left_to_who_needs_it() -> None:
    """It gains nothing by being told, and a callback may need it in the second half, too."""
    manager, main = Fake(parent=0, catches=False), Fake(takes=7)
    stop(main, manager)
    assert manager.ended_at >= main.ended_at


def test_a_shell_with_a_trap_cannot_tell_its_foreground_program() -> None:
    """`trap cleanup TERM; program`: the trap runs when the program has ended, so the program is told by us, at once."""
    program = Fake(parent=0, takes=2, busy=True)
    shell = Fake(name="sh", takes=0, forwards=True)
    shell.forwards = False
    stop(shell, program)
    assert program.told_by == [US]
    assert program.told_at == [STOP_AT]


def test_a_shell_with_a_trap_tells_what_it_put_into_the_background() -> None:
    """`program & trap 'kill $!' TERM; wait`: the program is the shell's to tell."""
    program = Fake(parent=0, takes=2, in_background=True)
    stop(Fake(name="bash", forwards=True), program)
    assert program.told_by == [1000]


def test_two_catchers_below_a_plain_shell_are_told_at_once() -> None:
    """The shell dies of the stop; what it has started is told in the same moment."""
    one, two = Fake(parent=0, takes=1), Fake(parent=0, takes=2, session=True)
    policy, _, seconds = stop(Fake(name="sh", catches=False), one, two)
    assert (one.told_at, two.told_at) == ([STOP_AT], [STOP_AT])
    assert policy.status == 143
    assert 2 <= seconds < 2.1


# -- who does not catch goes last -------------------------------------------------------------------------------------


def test_the_reader_of_a_pipe_reads_to_the_end() -> None:
    """`app | tee log`: tee is not told while app cleans up, and ends by itself."""
    app, tee = Fake(parent=0, takes=2), Fake(parent=0, catches=False, reads=1)
    policy, _, seconds = stop(Fake(name="bash", catches=False), app, tee)
    assert tee.told_at == []
    assert tee.ended_at > app.ended_at
    assert policy.status == 143
    assert seconds < 2.2


def test_a_pipeline_ends_from_left_to_right() -> None:
    """`app | grep | tee`: who reads from a reader is a reader, too."""
    plan = [
        Fake(name="bash", catches=False),
        Fake(parent=0, takes=2),
        Fake(parent=0, catches=False, reads=1),
        Fake(parent=0, catches=False, reads=2),
    ]
    stop(*plan)
    assert plan[1].ended_at < plan[2].ended_at < plan[3].ended_at
    assert not plan[3].told_at


def test_a_parent_that_reads_its_childs_output_goes_last() -> None:
    """A main that does not catch, and logs what its child prints: it is there until the child has ended."""
    main, app = Fake(catches=False, reads=1), Fake(parent=0, takes=2)
    stop(main, app)
    assert main.ended_at > app.ended_at


def test_a_reader_that_never_ends_is_told_when_it_has_had_its_time() -> None:
    """Half of what is left, or five seconds without a limit."""
    app, tee = Fake(parent=0, takes=1), Fake(parent=0, catches=False, reads=3)
    stuck = Fake(parent=0, catches=False, reads=1)
    _, world, seconds = stop(Fake(name="bash", catches=False), app, tee, stuck)
    assert world.is_empty()
    assert seconds < 6

    plan = [Fake(name="sh", catches=False), Fake(parent=0, takes=1), Fake(parent=0, catches=False, reads=1)]
    world = Trees(plan)
    world._end = _without_eof(world)  # type: ignore[method-assign, assignment]
    policy = Policy(world.children, world, Terms(grace=None))
    assert play(policy, world, STOP_AT) - STOP_AT == pytest.approx(6, abs=0.6)


def _without_eof(world: Trees) -> Callable[[Fake, int], None]:
    end = world._end

    def keep(fake: Fake, status: int) -> None:
        end(fake, status)
        for each in world.fakes:
            each.ends_at = inf if each.reads is not None else each.ends_at

    return keep


def test_the_reader_of_a_daemon_goes_last() -> None:
    """A daemon's descent is not known: its reader waits for it, it for nobody who only reads, and a helper for neither."""
    plan = [Fake(name="sh", catches=False), Fake(parent=0, daemon=True, takes=2)]
    tee, log = Fake(parent=0, catches=False, reads=1), Fake(parent=0, catches=False, reads=2)
    helper = Fake(parent=0, catches=False)
    _, _, seconds = stop(*plan, tee, log, helper)
    assert helper.told_at == [STOP_AT]
    assert (tee.told_at, log.told_at) == ([], [])
    assert plan[1].ended_at < tee.ended_at < log.ended_at
    assert 2 <= seconds < 2.5


def test_a_daemon_is_there_until_all_but_its_readers_have_gone() -> None:
    """Another program may need it for its cleanup."""
    main, app = Fake(catches=False, reads=2), Fake(takes=3)
    daemon = Fake(parent=0, daemon=True, takes=1)
    stop(main, app, daemon)
    assert daemon.told_at == [app.ended_at]
    assert main.ended_at > daemon.ended_at


def test_who_reads_what_another_program_writes_goes_last() -> None:
    """`run -- app ::: tail -f log`; but nobody waits for a program whose turn comes later."""
    for after, told_at in (False, []), (True, [STOP_AT]):
        plan = [Fake(takes=2), Fake(catches=False, reads=0)]
        world = Trees(plan)
        if after:
            world.children[1].after = (world.children[0],)
        play(Policy(world.children, world, Terms(grace=GRACE)), world, STOP_AT)
        assert plan[1].told_at == told_at
        assert plan[0].killed_at == inf


def test_what_a_shell_with_a_trap_waits_for_reads_nobody_elses_output_to_the_end() -> None:
    """`service nginx start; trap 'service nginx stop' TERM; tail -f log`: the trap is a cleanup, and waits for tail."""
    shell, tail = Fake(name="sh"), Fake(parent=0, catches=False, reads=2)
    stop(shell, tail, Fake(parent=0, daemon=True, takes=1))
    assert tail.told_at == [STOP_AT]


def test_who_is_left_by_a_main_does_not_wait_for_a_daemon_that_nobody_stops() -> None:
    """Main has ended, its reader is told to stop, and the others go on: the daemon is there until the stop."""
    main, other = Fake(by_itself=100.5), Fake(takes=1)
    reader, daemon = Fake(parent=0, catches=False, reads=3), Fake(parent=0, daemon=True, takes=1)
    policy, world, _ = stop(main, other, reader, daemon, when_one_exits="wait")
    assert reader.told_at == [100.5]
    assert daemon.told_at == [STOP_AT + 1]
    assert policy.status == 0
    assert world.is_empty()


def test_helpers_that_do_not_catch_go_when_nobody_needs_them() -> None:
    """A sleeping helper beside a catcher: told as soon as the catcher has gone."""
    app, helper = Fake(parent=0, takes=2), Fake(parent=0, catches=False)
    _, _, seconds = stop(Fake(name="sh", catches=False), app, helper)
    assert helper.told_at
    assert helper.told_at[0] >= app.ended_at
    assert seconds < 2.1


# -- the budget -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["tree", "group", "main", "main-then-group"])
def test_who_ignores_the_stop_is_killed_and_is_no_success(scope: str) -> None:
    """At nine tenths; the status says so, whoever it was."""
    policy, world, seconds = stop(
        Fake(catches=False), Fake(parent=0, takes=inf), Fake(parent=0, takes=inf, session=True), scope=scope
    )
    assert policy.anybody_killed
    assert policy.status != 0
    assert world.is_empty()
    assert KILL_AFTER <= seconds < KILL_AFTER + 0.5


def test_without_proc_groups_are_told_and_everybody_is_waited_for() -> None:
    """Nobody can be looked at: groups are told as a whole, and done means that nobody is left."""
    main, rest, stray = Fake(catches=False), Fake(parent=0, takes=2), Fake(parent=0, session=True, takes=1)
    _, world, seconds = stop(main, rest, stray, blind=True)
    assert (len(main.told_at), len(rest.told_at)) == (1, 1)
    assert world.is_empty()
    assert seconds > KILL_AFTER - 0.1  # for the stray, which nobody could tell


def test_a_main_that_leaves_others_behind_ends_them_or_stays() -> None:
    """It says so; with `stay` it is as if main still ran, until the last of them has ended or a stop comes."""
    for stay, ends in ((False, 102.0), (True, 105.0)):
        plan = [Fake(by_itself=101.0), Fake(parent=0, takes=1.0, by_itself=105.0)]
        world = Trees(plan)
        policy = Policy(world.children, world, Terms(stay=stay))
        assert play(policy, world, 500.0) == pytest.approx(ends)
        assert world.behind == ["c0"]
        assert policy.status == 0


def test_a_stop_while_we_stay_is_told_to_those_who_are_left() -> None:
    """Told once, with the whole time for asking."""
    plan = [Fake(by_itself=100.5), Fake(parent=0, takes=7.0)]
    world = Trees(plan)
    policy = Policy(world.children, world, Terms(stay=True))
    assert play(policy, world, 200.0) == pytest.approx(207.0)
    assert plan[1].told_at == [200.0]


# -- whatever happens -------------------------------------------------------------------------------------------------

SLOW = [HealthCheck.too_slow]
"""It says so of a machine that is busy with something else, too."""

durations = st.one_of(st.floats(0, 3), st.floats(0, 15), st.just(inf))


@st.composite
def trees(draw: st.DrawFn, *, patient: bool = False) -> list[Fake]:
    """A few mains with whatever below them."""
    plan: list[Fake] = []
    for number in range(draw(st.integers(1, 8))):
        catches = draw(st.booleans())
        plan.append(
            Fake(
                parent=draw(st.one_of(st.none(), st.integers(0, number - 1))) if number else None,
                takes=draw(st.floats(0, 0.5)) if patient else draw(durations),
                catches=catches,
                forwards=catches and draw(st.booleans()),
                busy=draw(st.booleans()),
                session=draw(st.booleans()),
                reads=draw(st.one_of(st.none(), st.integers(0, number - 1)))
                if number and not catches
                else None,
                by_itself=inf if patient else 100 + draw(st.one_of(st.floats(0, 15), st.just(inf))),
                name=draw(st.sampled_from(["sh", "program"])),
                in_background=draw(st.booleans()),
                deafens=draw(st.booleans()),
                daemon=draw(st.booleans()),
            )
        )
    return plan


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(
    trees(),
    st.floats(100, 110),
    st.sampled_from(["stop", "wait"]),
    st.sampled_from(["tree", "main", "main-then-group"]),
    st.booleans(),
)
def test_the_budget_holds_and_nobody_is_wronged(
    plan: list[Fake], stop_at: float, when: str, scope: str, callbacks: bool
) -> None:
    """All are gone in the budget, none is killed before it, none is told twice by us, and a killing is no success."""
    world = Trees(plan)
    for child in world.children:
        child.scope = scope  # type: ignore[assignment]
    terms = Terms(grace=GRACE, callbacks=callbacks, when_one_exits=when)  # type: ignore[arg-type]
    policy = Policy(world.children, world, terms)
    done_at = play(policy, world, stop_at)
    assert policy.budget is not None
    asking = KILL_BEFORE_CALLBACKS_AFTER if callbacks else KILL_AFTER
    assert done_at <= policy.budget.began + asking + 0.3
    assert world.is_empty()
    for fake in plan:
        assert fake.told_by.count(US) <= 1
        if fake.killed_at < inf:
            assert fake.killed_at >= min(policy.budget.began + asking, 100 + GRACE) - 1e-6
    assert policy.anybody_killed == any(fake.killed_at < inf for fake in plan)


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(trees(patient=True))
def test_a_tree_that_can_end_in_time_does(plan: list[Fake]) -> None:
    """The four promises: nobody is told twice, killed, or left, and readers outlive the catchers whose output they read.

    Who is in the foreground of a shell with a trap that a wrapper tells is told by neither, with us or without.
    """
    assume(not any(_is_left_to_two(_line(plan, each)) for each in plan))
    world = Trees(plan)
    policy = Policy(world.children, world, Terms(grace=100.0))
    play(policy, world, STOP_AT)
    assert world.is_empty()
    for fake in plan:
        if fake.catches:
            assert len(fake.told_at) == 1
        assert fake.killed_at == inf
        if fake.told_by not in ([], [US]) or fake.reads is None or not plan[fake.reads].catches:
            continue  # what wrappers do to those below them is their business
        line, others = _line(plan, fake), _line(plan, plan[fake.reads])
        waited_for = any(
            each.catches for each in line
        )  # by a shell, whose trap nobody else's output is to keep waiting
        if others[0] not in line and (line[-1] is others[-1] or not waited_for):
            assert fake.ended_at >= others[0].ended_at


def _is_left_to_two(line: list[Fake]) -> bool:
    above = [each for each in line[1:] if each.catches]
    return not line[0].catches and len(above) > 1 and any(each.name == "sh" for each in above[:-1])


def _line(plan: list[Fake], fake: Fake) -> list[Fake]:
    """It and those above it, as far as anybody knows."""
    known = fake.parent is not None and not fake.daemon
    return [fake, *(_line(plan, plan[fake.parent]) if known and fake.parent is not None else [])]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 2), min_size=2, max_size=4))
def test_who_comes_after_is_gone_before_the_other_is_asked(takes: list[float]) -> None:
    """A chain of children that all end in time is stopped strictly in reverse."""
    plan = [Fake(takes=each / len(takes)) for each in takes]
    world = Trees(plan)
    for earlier, later in pairwise(world.children):
        later.after = (earlier,)
    play(Policy(world.children, world, Terms(grace=GRACE)), world, STOP_AT)
    for earlier_fake, later_fake in pairwise(plan):
        assert earlier_fake.told_at[0] >= later_fake.ended_at


def test_who_is_not_ready_keeps_the_others_waiting() -> None:
    """Only those whose predecessors are ready may be started; after a stop nobody is."""
    from cleanup_guard._supervise._ready import parse

    db, web, other = Child("db", ready=parse("tcp:5432")), Child("web"), Child("other")
    web.after = (db,)
    policy = Policy([db, web, other], Trees([]), Terms())
    assert policy.startable() == [db, other]
    db.pid = 5
    assert policy.startable() == [other]
    assert db.ready is not None
    db.ready.seen = True
    assert policy.startable() == [web, other]
    policy.stop("enough", 1.0)
    assert policy.startable() == []


# -- forwarding -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(trees())
def test_a_forwarded_signal_comes_once(plan: list[Fake]) -> None:
    """HUP and the others follow the same rule: nobody gets it from us and from who catches it above."""
    assume(all(fake.by_itself > 100.5 for fake in plan))
    world = Trees(plan)
    heard: list[int] = []
    world.tell = lambda process, signum: heard.append(process.pid)  # type: ignore[method-assign]
    world.signal = lambda child, signum, *, to_group: heard.append(child.pid or 0)  # type: ignore[method-assign]
    policy = Policy(world.children, world, Terms())
    policy.signal(1, 100.0)
    assert len(heard) == len(set(heard))
    for child in world.children:
        main = world.fakes[(child.pid or 0) - 1000]
        assert not main.catches or main.pid in heard


def test_who_would_only_die_of_a_forwarded_signal_is_spared() -> None:
    """`sh -c 'nginx; true'` and SIGHUP: nginx reads its configuration anew, and the shell goes on."""
    plan = [Fake(name="sh", catches=False), Fake(parent=0)]
    world = Trees(plan)
    policy = Policy(world.children, world, Terms())
    policy.signal(1, 100.0)
    assert (plan[0].told_at, plan[1].told_at) == ([], [100.0])


def test_insisting_is_one_press_after_another() -> None:
    """A duplicate within half a second is the same press; the second one ends the patience, the third everything."""
    plan = [Fake(takes=inf)]
    world = Trees(plan)
    policy = Policy(world.children, world, Terms(grace=None))
    for now, presses in ((100.0, 1), (100.2, 1), (101.0, 2), (101.3, 2), (102.0, 3)):
        policy.signal(2, now)
        assert policy.stopping.presses == presses
        assert (policy.kill_at < inf) == (presses > 1)
    policy.step(102.0)
    assert policy.done

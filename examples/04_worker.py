"""A worker that finishes the job in hand. Use it when half a job is worse than none: nothing is raised, main looks.

A stop that comes while a job runs is seen after it; `g.sleep` ends early for it.
"""

from collections.abc import Iterator

from cleanup_guard import Guard, guard


def fetch_jobs() -> Iterator[int]:
    yield from range(1_000_000)


def process(job: int, g: Guard) -> None:
    g.sleep(0.2)  # the work


def main() -> None:
    with guard(grace=10, interrupt=False, exit_status=0) as g:
        g.callback(print, "connection closed", flush=True)
        g.on_stop(print, "taking no more jobs\n", end="", flush=True)
        print("ready", flush=True)
        for job in fetch_jobs():
            process(job, g)
            if g.stopping:
                print("the job in hand is done\n", end="", flush=True)
                return


if __name__ == "__main__":
    main()

"""Several programs under one Python main: when you would otherwise write `trap`, `kill` and `wait`.

Run it, then press Ctrl-C or send SIGTERM: the worker is stopped before the database that it needs, and main's own
callback comes last. When a child fails, the program ends with its status.
"""

from cleanup_guard import Supervisor, guard, on_exit, run


@guard(grace=10)
def main() -> None:
    """Prepare, start two programs, and stay until they are gone."""
    run(["echo", "preparing"], check=True)
    on_exit(print, "everybody is gone")
    with Supervisor() as children:
        database = children.start("sh", "-c", "echo database; sleep 1", name="database")
        children.start("sh", "-c", "echo worker; sleep 1", name="worker", after=[database])
        print("status", children.wait())


if __name__ == "__main__":
    main()

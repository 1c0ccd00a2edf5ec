"""gunicorn with `--preload`, where the module is imported in the master: `gunicorn --preload --config preload_conf.py ...`.

A worker is a fork, which never runs its parent's callbacks. So each registers its own.
"""

from cleanup_guard import on_exit


def post_worker_init(worker: object) -> None:
    on_exit(print, "pool closed", flush=True)

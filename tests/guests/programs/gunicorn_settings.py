"""Gunicorn's own end of a worker, noted by its hook."""

import guest

workers = 1
graceful_timeout = 20
control_socket_disable = True


def worker_exit(server, worker):
    guest.note("host over")

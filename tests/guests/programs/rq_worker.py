"""An RQ worker with one job: rq_worker.py Worker | SimpleWorker."""

import os
import sys

import guest
import rq
from redis import Redis

guest.module()


class Noting(getattr(rq, sys.argv[1])):
    """Notes its own end."""

    def register_death(self):
        super().register_death()
        guest.note("host over")


@guest.main
def main():
    connection = Redis.from_url(guest.REDIS)
    queue = rq.Queue(os.path.basename(guest.FOLDER), connection=connection)
    queue.enqueue("rq_jobs.job")
    Noting([queue], connection=connection).work()


main()

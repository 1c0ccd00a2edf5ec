"""What RQ's workers import for their jobs."""

import guest


@guest.job
def job():
    guest.work()

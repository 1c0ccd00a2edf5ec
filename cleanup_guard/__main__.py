"""`python -m cleanup_guard` is the command `cleanup-guard`."""

import sys

from cleanup_guard._cli import command

sys.exit(command())

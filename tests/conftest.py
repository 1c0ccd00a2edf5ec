"""What holds for every test: generated inputs are the same each time, so that a commit gets one verdict.

`pytest --hypothesis-profile=default` draws new ones.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("the same every time", derandomize=True, database=None)
settings.load_profile("the same every time")

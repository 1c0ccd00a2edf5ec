"""What holds for every test: it cannot hang the suite, and generated inputs are the same each time: a commit gets one verdict.

`pytest --hypothesis-profile=default` draws new ones.
"""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["watchdog"]

settings.register_profile("the same every time", derandomize=True, database=None)
settings.load_profile("the same every time")

"""What is said where a part of this package cannot work: everything can be imported everywhere, and says so when it is used."""

from __future__ import annotations

import sys

PLATFORMS = {"darwin": "macOS", "linux": "Linux", "win32": "Windows"}


def needs(system: str, because: str) -> str:
    """That something needs another system than this one.

    Args:
        system: what it needs, "Linux" for example.
        because: what of it.
    """
    here = PLATFORMS.get(sys.platform, sys.platform)
    return f"needs {system}, which has {because}, and this is {here}"

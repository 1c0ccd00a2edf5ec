"""What the program may never get back: capabilities, and more privileges by executing a file that has them.

Rules:
1. What is dropped is dropped from every set: from the bounding set while we still may, from the others at the end.
2. It is found out beforehand whether we may.
"""

from __future__ import annotations

import errno
import os
import sys

from cleanup_guard._ground.elsewhere import needs
from cleanup_guard._ground.kernel import (
    CAP_SETPCAP,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_LOWER,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_SET_NO_NEW_PRIVS,
    call,
    capabilities,
    may,
    prctl,
    set_capabilities,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CAPABILITIES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *(
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
    ),
    *(
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
    ),
    *("sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control"),
    *("setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read"),
    *("perfmon", "bpf", "checkpoint_restore"),
)
"""By their numbers, from 0."""


class Privileges:
    """What is to be given up.

    Args:
        no_new_privs: whether executing a file may not give any more: no set-user-ID, no file capabilities.
        drop_caps: the capabilities to lose for good, by name, with or without CAP_; "all" for all.

    Raises:
        ValueError: there is no such capability.
        PermissionError: we may not drop one.
        NotImplementedError: on other systems than Linux.
    """

    __slots__ = ("_bounded", "_caps", "_no_new_privs")

    def __init__(self, *, no_new_privs: bool, drop_caps: Iterable[str]) -> None:
        self._no_new_privs = no_new_privs
        self._caps = _numbers(drop_caps)
        if (self._caps or no_new_privs) and sys.platform != "linux":
            raise NotImplementedError(
                f"giving up privileges {needs('Linux', 'capabilities and no_new_privs')}"
            )
        self._bounded = [cap for cap in self._caps if call("prctl", PR_CAPBSET_READ, cap, 0, 0, 0) == 1]
        if self._bounded and not may(CAP_SETPCAP):
            raise PermissionError(
                errno.EPERM, "capabilities can only be dropped by root, or with the capability SETPCAP"
            )

    def bound(self) -> None:
        """Drop from the bounding set, before the user changes. There is no way back.

        Raises:
            PermissionError: the system does not let us.
        """
        for cap in self._bounded:
            _insist(prctl(PR_CAPBSET_DROP, cap), f"the capability {_name(cap)} cannot be dropped")

    def finish(self) -> None:
        """Drop from all other sets, after the user has changed. There is no way back.

        Raises:
            PermissionError: the system does not let us.
        """
        if self._caps:
            for cap in self._caps:
                prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, cap)  # an unknown one is in no set
            lost = sum(1 << cap for cap in self._caps)
            sets = capabilities()
            done = sets is not None and set_capabilities([each & ~lost for each in sets])
            _insist(done, "capabilities cannot be dropped")
        if self._no_new_privs:
            _insist(prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs cannot be set")


def _numbers(words: Iterable[str]) -> list[int]:
    found: set[int] = set()
    for word in words:
        name = word.strip().lower().removeprefix("cap_")
        if name == "all":
            found.update(range(2 * 32))
        elif name in CAPABILITIES:
            found.add(CAPABILITIES.index(name))
        else:
            raise ValueError(f"there is no capability {word!r}: use a name such as net_raw, or all")
    return sorted(found)


def _name(cap: int) -> str:
    return CAPABILITIES[cap] if cap < len(CAPABILITIES) else str(cap)


def _insist(done: bool, sentence: str) -> None:  # noqa: FBT001 - what was done is the word before
    if not done:
        raise PermissionError(errno.EPERM, f"{sentence}: {os.strerror(errno.EPERM).lower()}")

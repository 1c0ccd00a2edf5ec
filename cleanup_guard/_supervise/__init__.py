"""Starting children, forwarding signals to them, and waiting until the last descendant is gone.

`_policy` decides and is pure; `_tree` looks at /proc; `_spawn` starts; `_command` is `cleanup-guard run`, which owns its
process and may reap everything; `_supervisor` and `_oneoff` live in somebody else's and touch only what they started.
"""

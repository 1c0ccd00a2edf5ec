"""Rehearse a stop: start a program, stop it as a platform would, and watch from outside who ended how.

Neither guard nor supervisor imports it. It starts and ends processes, so it runs in a process of its own (the command).
"""

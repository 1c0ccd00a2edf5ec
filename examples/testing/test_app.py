"""Tests of a program's own cleanup: in a process of its own, and in pytest's. Run them with pytest, in this folder."""

import os
import signal
import sys
import threading

import app
import pytest


def test_the_program_cleans_up(rehearse):
    assert rehearse([sys.executable, "app.py"], ready="started").clean


def test_main_cleans_up(capsys):
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM]).start()
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().out == "started\ndatabase closed\n"

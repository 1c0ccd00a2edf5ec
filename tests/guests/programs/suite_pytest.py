"""Tests for pytest to be stopped in."""

import time

import guest
import pytest

guest.module()


@pytest.fixture(scope="session")
def whole_run():
    yield
    time.sleep(0.5)
    guest.note("session fixture down")


@pytest.fixture
def one_test():
    yield
    guest.note("fixture down")


@guest.job
def wait():
    guest.note("begins")
    while True:
        time.sleep(0.02)


def test_waits(whole_run, one_test):
    wait()


def test_of_the_same(whole_run):
    guest.note("another test")

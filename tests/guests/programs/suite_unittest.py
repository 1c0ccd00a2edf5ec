"""Tests for unittest, which with --catch finishes the test in hand."""

import unittest

import guest

guest.module()


def tearDownModule():
    guest.note("host over")


class Working(unittest.TestCase):
    @guest.job
    def test_a(self):
        guest.work()

    def test_b(self):
        guest.note("another test")

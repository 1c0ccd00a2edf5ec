"""Becoming another program: looked up, explained, and done as the last act of a process."""

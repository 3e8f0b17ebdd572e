"""Tests: the fast group runs by default, the slow one with `-m slow`."""

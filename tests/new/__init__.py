"""Tests of new/."""

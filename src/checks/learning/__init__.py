"""Checks of what a few steps learn."""

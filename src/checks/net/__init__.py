"""Checks of the net and its settings."""

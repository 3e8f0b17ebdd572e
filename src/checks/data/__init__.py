"""Checks of the data and of the way they are loaded."""

"""Checks of a training set-up before the first expensive hour, and the report they make."""

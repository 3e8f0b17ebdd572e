"""Checks of the training step."""

"""Checks of evaluation, averaged weights and checkpoints."""

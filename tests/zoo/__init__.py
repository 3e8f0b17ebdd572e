"""Faults, harmless changes and healthy set-ups that the checks are scored on."""

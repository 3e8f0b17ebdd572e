"""Healthy set-ups."""


def healthy():
    return {}

from contextlib import contextmanager


@contextmanager
def deferred():
    yield lambda: False


def at_work():
    pass

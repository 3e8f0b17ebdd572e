from contextlib import contextmanager


class Log:
    def __getattr__(self, name):
        return lambda *arguments: None


@contextmanager
def start(*arguments, **options):
    yield Log()


reopen = start

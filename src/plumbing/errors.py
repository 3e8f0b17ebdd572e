"""The two ways in which a stage ends on purpose before its work is done."""


class InputError(Exception):
    """The user's input (params, data, arguments) is wrong: one line says what to change, exit 2."""


class GateError(Exception):
    """A check or a gate failed: one line says which and what follows, exit 1."""

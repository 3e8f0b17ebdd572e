class InputError(Exception):
    pass


class GateError(Exception):
    pass

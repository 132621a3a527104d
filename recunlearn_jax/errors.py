"""The one error a user can mend."""


class InputError(ValueError):
    """Something the user gave is not usable: one sentence naming the value, where it stands and what is allowed.

    The command line prints it without a traceback and ends with exit code 2.
    """

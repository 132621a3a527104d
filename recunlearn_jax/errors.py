"""What the user is told: the one error that a user can mend, and notes that stop nothing."""

LONGEST = 600  # characters; longer messages keep their beginning and their end


class InputError(ValueError):
    """Something the user gave is not usable: one sentence naming the value, where it stands and what is allowed.

    The command line prints it without a traceback and ends with exit code 2. Whatever the sentence quotes, it stays one readable line:
    control characters are escaped, and a text longer than a few lines of a terminal is cut in its middle.

    Examples:
        >>> str(InputError("a\\nb"))
        'a\\\\nb'
    """

    def __init__(self, message: str):
        super().__init__(readable(message))


class Note(UserWarning):
    """Something that the user may not have meant; the work goes on."""


def readable(text: str, longest: int = LONGEST) -> str:
    """One line of printable characters, at most `longest` of them."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    half = (longest - 5) // 2
    return line if len(line) <= longest else f"{line[:half]} ... {line[-half:]}"

"""What the user is told: the one error that a user can fix, and notes that stop nothing."""

LONGEST = 600  # characters; longer messages keep their beginning and their end


class InputError(ValueError):
    """Something the user gave is not usable: one sentence naming the value, where it is and what is allowed.

    The command line prints it without a traceback and exits with code 2. Whatever the sentence quotes, it stays one readable line:
    control characters are escaped, and a text longer than a few lines of a terminal is cut in the middle.

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


def shown(value: object) -> str:
    """A value as a message quotes it: control characters escaped, at most 60 characters.

    Examples:
        >>> shown("a\\nb")
        "'a\\\\nb'"
    """
    try:
        text = repr(value[:60] if isinstance(value, str | bytes) else value)
    except (ValueError, RecursionError):  # a number with thousands of digits, or lists nested too deeply
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "..."


def check_type(given: object, kind: type, name: str, hint: str) -> None:
    """Check that an argument has the expected type.

    Raises:
        InputError: it is not.

    Examples:
        >>> check_type("runs/model", dict, "original", "read it first")
        Traceback (most recent call last):
        recunlearn_jax.errors.InputError: original: 'runs/model' given; a dict is expected (read it first)
    """
    if not isinstance(given, kind):
        raise InputError(f"{name}: {shown(given)} given; a {kind.__name__} is expected ({hint})")


def counted(n: int, name: str) -> str:
    """A count with its noun.

    Examples:
        >>> counted(1, "figure"), counted(2979, "user")
        ('1 figure', '2,979 users')
    """
    return f"{n:,} {name}{'' if n == 1 else 's'}"

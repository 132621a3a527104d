"""Numbers, dates and lists as the page writes them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from recunlearn_jax.errors import counted
from recunlearn_jax.evidence.words import Form


def number(value: float, form: Form) -> str:
    """A figure with the digits that matter.

    Examples:
        >>> number(0.0561, "share"), number(184.0, "steps"), number(0.00030155, "size")
        ('5.6%', '184', '3.0e-04')
    """
    if form == "share":
        return f"{100 * value:.1f}%"
    if form == "steps":
        return f"{value:.0f}"
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def listed(words: Sequence[str]) -> str:
    """A list as it reads in a sentence.

    Examples:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def capital(text: str) -> str:
    """The text with a capital first letter, the rest unchanged."""
    return text[:1].upper() + text[1:]


def removed(forgotten: Mapping[str, int]) -> str:
    """What was removed, from the counts of a manifest or a ledger.

    Examples:
        >>> removed({"audio feature rows": 3, "items": 0, "pairs": 2979, "users": 1})
        '1 user, 2,979 interactions and the audio data of 3 items'
    """
    names = {"users": "user", "items": "item", "pairs": "interaction"}
    words = [
        counted(n, names[kind])
        if kind in names
        else f"the {kind.removesuffix(' feature rows')} data of {counted(n, 'item')}"
        for kind, n in sorted(
            forgotten.items(), key=lambda entry: list(names).index(entry[0]) if entry[0] in names else 3
        )
        if n
    ]
    return listed(words or ["nothing"])


def date(time: str) -> str:
    """A moment in ISO 8601 as a date that is read the same everywhere.

    Examples:
        >>> date("2026-11-26T02:10:17+00:00")
        '26 November 2026, 02:10 UTC'
    """
    moment = datetime.fromisoformat(time).astimezone(UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def duration(seconds: float) -> str:
    """Seconds in words.

    Examples:
        >>> duration(4.49), duration(57.96), duration(7260)
        ('4.5 seconds', '58 seconds', '2.0 hours')
    """
    if seconds >= 7200:
        return f"{seconds / 3600:,.1f} hours"
    if seconds >= 120:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.2g} seconds" if seconds < 10 else f"{seconds:.0f} seconds"

"""The errors that are meant for the user's eyes, and how they name what was meant."""

import difflib


class DataError(ValueError):
    """Something a user can mend: the message is one line naming the file, the place in it, and the mend."""


class Unreachable(DataError):
    """A file that is on another machine, which does not answer."""


def closest(word: str, known) -> str:
    """The nearest known word, or all of them: the mend of a typo."""
    near = difflib.get_close_matches(word, list(known), n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    names = sorted(known)
    return f"known: {', '.join(names[:12])}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")

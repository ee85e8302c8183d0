"""Errors that are shown to the user in one line, and the suggestions in their messages."""

import difflib


class DataError(ValueError):
    """An error that the user can repair: the message is one line naming the file, the place in it, and the repair."""


class UnreachableError(DataError):
    """A remote file whose host does not answer."""


def suggest(word: str, candidates) -> str:
    """Suggest the nearest known word for a misspelt one; without a near one, list the known words."""
    near = difflib.get_close_matches(word, list(candidates), n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    names = sorted(candidates)
    return f"known: {', '.join(names[:12])}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")

"""Errors that are shown to the user in one line, and the suggestions in their messages."""

import difflib
import re


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


def first_error(log: str, words: str = "Error|Exception") -> str:
    """The first line of a program's log that matches ``words``, without colours; the last line if none does."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[\d;]*m", "", log).splitlines() if line.strip()]
    errors = [line for line in lines if re.search(words, line)]
    return (errors or lines[-1:] or ["no output"])[0]

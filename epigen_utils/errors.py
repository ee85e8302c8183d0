"""Errors that are shown to the user in one line, and the suggestions in their messages."""

import difflib
import errno
import re

#: What a disk refuses -> the repair.
REFUSED = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space there")
REFUSED |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "change its permissions")


class DataError(ValueError):
    """An error that the user can repair: the message is one line naming the file, the place in it, and the repair.

    A name in the data may hold ends of lines, or codes that a terminal obeys; they stand here as Python
    writes them.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


class UnreachableError(DataError):
    """A remote file whose host does not answer."""


def one_line(error: DataError | OSError) -> str:
    """The message of a `DataError`, or what a disk refused, with the repair (`REFUSED`); empty for another error."""
    if isinstance(error, DataError):
        return str(error)
    if error.errno not in REFUSED:
        return ""
    return f"{error.filename or 'a file'}: {error.strerror}; {REFUSED[error.errno]}, and run this again"


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


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

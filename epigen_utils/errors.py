"""The errors that are meant for the user's eyes."""


class DataError(ValueError):
    """Something a user can mend: the message is one line naming the file, the place in it, and the mend."""


class Unreachable(DataError):
    """A file that is on another machine, which does not answer."""

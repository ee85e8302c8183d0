"""The one error that is meant for the user's eyes."""


class DataError(ValueError):
    """Something a user can mend: the message is one line naming the file, the place in it, and the mend."""

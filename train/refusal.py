"""The one error of a run that cannot start, or cannot go on, for a reason that the user can do something about."""


class Refused(ValueError):
    """The text says what is wrong and what would help; no traceback is needed to understand it."""

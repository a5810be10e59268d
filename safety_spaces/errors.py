"""The one kind of error that a user can cause and mend."""


class UserError(Exception):
    """A mistake in a study, a file or a command: one line that says what was expected, what came and what to do."""

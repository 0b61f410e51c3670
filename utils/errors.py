"""The one exception for a user's mistake."""


class UserError(Exception):
    """A mistake in the command, the config or the data.

    The message is one line: what came, what was expected, what to do. The command line prints it
    without a traceback and exits with status 2.
    """

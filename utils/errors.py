"""The one exception for a user's mistake."""

import difflib


class UserError(Exception):
    """A mistake in the command, the config or the data.

    The message is one line: what came, what was expected, what to do. The command line prints it
    without a traceback and exits with status 2.
    """


def unknown_key(place: str, key: str, valid: list[str]) -> UserError:
    """The error for a key that nothing reads, naming the nearest valid one."""
    nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    return UserError(f"unknown key {place}: {hint}(valid: {', '.join(sorted(valid)) or 'none'})")

"""The one error that a user can mend: shown as a single line, exit code 2."""


class DataPrepError(Exception):
    """A fault in the input, the options or the output place; the message names it and says what to do."""

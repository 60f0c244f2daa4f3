"""The error for everything that the user of a command can correct: options, input files, output folders."""


class UserError(ValueError):
    """A fault in options, files or folders.

    Its message names the value, the place and the remedy. Every command prints it in one line and exits with 2
    (`verl_ispo.command_line`).
    """

"""The error of everything that a user of the evaluation can mend: input files, options, folders."""


class EvaluationError(ValueError):
    """A fault in files or options; its text names the value, the place and the remedy."""

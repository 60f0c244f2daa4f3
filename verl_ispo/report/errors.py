"""What stops a report; anything less becomes a gap that the page shows."""


class ReportInputError(ValueError):
    """Input from which no report can be made; the message names the file and the remedy."""

"""How many examples a property test draws: few in the ordinary suite, the stated number under `scripts/test.sh all`."""

from hypothesis import settings

WHOLE = 100  # the profile under which a test draws what it states
FEWEST = 10


def examples(count: int) -> int:
    """``count`` scaled as the loaded profile scales Hypothesis's own 100, but `FEWEST` at least."""
    return min(count, max(FEWEST, count * settings.default.max_examples // WHOLE))

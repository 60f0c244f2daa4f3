"""Hypothesis without deadlines: the tests run on shared machines, and none of them is about time."""

from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

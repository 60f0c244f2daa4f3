"""verl first: it loads the plugin, which imports the modules under test."""

import verl  # noqa: F401

"""verl asks for its platform when it is imported, so the CPU has to be chosen before any test module is."""

import os

os.environ.setdefault("VERL_PLATFORM", "cpu")

"""All forms in which an answer key is tried: those that are the same answer, and those that are not."""

from __future__ import annotations

from rewritten_correct_forms import SPELLINGS
from rewritten_correct_sets import SPELLINGS_OF_SETS
from rewritten_dress import DRESS
from rewritten_wrong_forms import CHANGED_VALUES
from rewritten_wrong_sets import CHANGED_SETS

CORRECT_FORMS = {**DRESS, **SPELLINGS, **SPELLINGS_OF_SETS}
"""Forms by name: each gives answers that are certainly the key."""

WRONG_FORMS = {**CHANGED_VALUES, **CHANGED_SETS}
"""Forms by name: each gives answers that are certainly not the key."""

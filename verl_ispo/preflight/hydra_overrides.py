"""Any text quoted for Hydra's override grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable


def quoted(text: object) -> str:
    """A string of Hydra's grammar. Backslashes count there only before a quote or at the end."""
    doubled = re.sub(r"(\\+)(?='|\Z)", r"\1\1", str(text))
    return "'" + doubled.replace("'", r"\'") + "'"


def quoted_list(texts: Iterable[object]) -> str:
    """A list of such strings."""
    return f"[{','.join(map(quoted, texts))}]"

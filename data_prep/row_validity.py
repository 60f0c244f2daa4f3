"""Rows that their own columns mark as unusable: proofs, and problems that a curator found incomplete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

VALIDITY_COLUMNS = ("question_type", "problem_type", "problem_is_valid", "solution_is_valid")
"""NuminaMath-1.5's names; ``problem_type`` is OpenMathReasoning's too."""

PROOF = "uncheckable answer: proof"
_PROVE = re.compile(r"\b(?:[Pp]rove|[Ss]how|[Dd]emonstrate|[Vv]erify)\b")
_PROOF_TYPES = ("proof", "converted_proof")
# Values as published; an incomplete solution may still end in the correct answer.
_INVALID = {
    "problem_is_valid": ("no", "incomplete"),
    "solution_is_valid": ("no", "problem not solved"),
}


def invalid_reason(extras: Mapping[str, Any]) -> str:
    """Why a row's columns say that it cannot be trained on; empty if they do not say so."""
    if any(_text(extras.get(name)) in _PROOF_TYPES for name in ("question_type", "problem_type")):
        return PROOF
    for name, values in _INVALID.items():
        if _text(extras.get(name)) in values:
            return f"marked as invalid: {name} is {extras[name]}"
    return ""


def asks_for_a_proof(question: str) -> bool:
    """Whether a question without an answer is one because it asks for a proof."""
    return _PROVE.search(question) is not None


def _text(value: Any) -> str:
    return str(value).strip().lower() if value is not None else ""

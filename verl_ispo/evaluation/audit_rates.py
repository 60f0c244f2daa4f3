"""A person's verdicts as error rates of the grader, with exact intervals.

**Estimate** (Cochran, Sampling Techniques, chapter 5): a stratum with N of all samples, of which n were judged and e
were graded wrongly, gives N * e / n; the rate is the sum over strata over the sum of their N. Errors among the samples
that the grader accepted (false accepts) and among those that it rejected (false rejects) are told apart.

**Interval.** Audits are small and graders seldom err, so often no error is seen, and a bootstrap would give an interval
of no width. Each of the H strata that were not judged as a whole gets the Clopper-Pearson interval at level
1 - 0.05 / H (Bonferroni), and the weighted sums of their ends are the interval. It covers at least 95 %, for any number
of strata and any sizes; drawing without replacement only adds to that. A stratum that was judged as a whole has no
uncertainty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from verl_ispo.evaluation.audit_draw import (
    AUDIT_CSV,
    AUDIT_JSON,
    NUMBER,
    VERDICT,
    Audit,
    is_accepted,
    read_audit,
    read_rows,
    same_samples,
)
from verl_ispo.evaluation.statistics import CONFIDENCE_LEVEL, Interval
from verl_ispo.user_error import UserError

UNCLEAR = "unclear"
_WORDS = {
    **dict.fromkeys(("correct", "c", "right", "yes", "y", "true", "1", "1.0"), "correct"),
    **dict.fromkeys(("incorrect", "i", "wrong", "no", "n", "false", "0", "0.0"), "incorrect"),
    **dict.fromkeys((UNCLEAR, "u", "?"), UNCLEAR),
}
_SHOWN_CHARS = 40


@dataclass(frozen=True)
class Stratum:
    """What a person found in one stratum.

    Attributes:
        size (`int`): samples that it has.
        judged (`int`): of these, judged correct or incorrect.
        errors (`int`): of the judged ones, those that the grader graded wrongly.
    """

    size: int
    judged: int
    errors: int


@dataclass(frozen=True)
class ErrorRate:
    """A share of samples that the grader grades wrongly.

    Attributes:
        rate (`float`): the estimate.
        interval (`Interval`): at least 95 % coverage.
        errors (`int`), judged (`int`): seen.
    """

    rate: float
    interval: Interval
    errors: int
    judged: int


def error_rate(strata: Mapping[str, Stratum]) -> ErrorRate | None:
    """The rate over these strata; `None` where there is no sample, or a stratum in which nothing was judged."""
    if not strata or any(stratum.judged == 0 for stratum in strata.values()):
        return None
    total = sum(stratum.size for stratum in strata.values())
    uncertain = sum(stratum.judged < stratum.size for stratum in strata.values())
    rate = low = high = 0.0
    for stratum in strata.values():
        weight, share = stratum.size / total, stratum.errors / stratum.judged
        rate += weight * share
        if stratum.judged == stratum.size:
            low, high = low + weight * share, high + weight * share
            continue
        level = 1.0 - (1.0 - CONFIDENCE_LEVEL) / uncertain
        ends = stats.binomtest(stratum.errors, stratum.judged).proportion_ci(level, "exact")
        low, high = low + weight * float(ends.low), high + weight * float(ends.high)
    errors, judged = (sum(getattr(stratum, name) for stratum in strata.values()) for name in ("errors", "judged"))
    return ErrorRate(rate, Interval(low, high, "clopper_pearson_bonferroni"), errors, judged)


def read_verdicts(out: Path, audit: Audit) -> dict[int, str]:
    """The verdict on each judged sample, by its number.

    Raises:
        UserError: naming the line: a number that was not drawn or is there twice, or a word that is no verdict.
    """
    path = out / AUDIT_CSV
    verdicts: dict[int, str] = {}
    seen: set[int] = set()
    for line, row in read_rows(path):
        text = (row[NUMBER] or "").strip()
        if not text and not (row[VERDICT] or "").strip():
            continue
        number = int(text) if text.isascii() and text.isdigit() else 0
        if not 1 <= number <= len(audit.drawn):
            raise UserError(
                f"{path}, line {line}: {NUMBER} {text[:_SHOWN_CHARS]!r} was not drawn (1 to {len(audit.drawn)}); "
                "put back the number that --audit wrote"
            )
        if number in seen:
            raise UserError(f"{path}, line {line}: {NUMBER} {number} is there twice; leave one of the lines")
        seen.add(number)
        said = (row[VERDICT] or "").strip().lower()
        if not said:
            continue
        if said not in _WORDS:
            raise UserError(
                f"{path}, line {line}: the verdict {said[:_SHOWN_CHARS]!r} on sample {number} is none; write correct, "
                "incorrect or unclear, or leave it empty"
            )
        verdicts[number] = _WORDS[said]
    return verdicts


def strata_of(audit: Audit, verdicts: Mapping[int, str]) -> dict[str, Stratum]:
    """What was found in each stratum; unclear samples are left out."""
    judged: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for number, verdict in verdicts.items():
        if verdict != UNCLEAR:
            stratum = audit.drawn[number - 1]
            judged[stratum] += 1
            errors[stratum] += is_accepted(stratum) != (verdict == "correct")
    return {name: Stratum(size, judged[name], errors[name]) for name, size in audit.population.items()}


def audit_remarks(out: Path, digests: Mapping[str, str]) -> list[str]:
    """What goes under the table; nothing where no audit was drawn or nothing was judged.

    Args:
        out (`Path`): folder of the table.
        digests (`Mapping[str, str]`): of the table's results, `audit_draw.results_digests`.

    Raises:
        UserError: a person's file that cannot be read.
    """
    if not (out / AUDIT_CSV).exists() or not (out / AUDIT_JSON).exists():
        return []
    audit = read_audit(out)
    verdicts = read_verdicts(out, audit)
    if not verdicts:
        return []
    if not same_samples(audit, digests):
        return [
            f"The verdicts in {AUDIT_CSV} are about other results than this table's, so they are not used here: the "
            "audit was drawn before a result was added, removed or evaluated again."
        ]
    strata = strata_of(audit, verdicts)
    unclear = sum(verdict == UNCLEAR for verdict in verdicts.values())
    rest = [
        f"{count} {word}"
        for count, word in ((unclear, "unclear"), (len(audit.drawn) - len(verdicts), "not judged yet"))
        if count
    ]
    left_out = f" ({', '.join(rest)}, left out)" if rest else ""
    accepted = {name: one for name, one in strata.items() if is_accepted(name)}
    rejected = {name: one for name, one in strata.items() if not is_accepted(name)}
    by_stratum = ", ".join(
        f"{name} {one.errors} of {one.judged} (of {one.size:,})" for name, one in sorted(strata.items())
    )
    return [
        f"The grader, checked by a person on {len(verdicts) - unclear} of {sum(audit.population.values()):,} samples, "
        f"drawn at random by status{left_out}: it grades {_rate_text(error_rate(strata))} of all samples wrongly; "
        f"of those that it accepts {_rate_text(error_rate(accepted))} are incorrect, of those that it rejects "
        f"{_rate_text(error_rate(rejected))} are correct. In brackets intervals of at least 95 % (exact by status, "
        f"Bonferroni). Errors by verdict and status: {by_stratum}."
    ]


def _rate_text(rate: ErrorRate | None) -> str:
    if rate is None:
        return "an unknown share (nothing was judged, or not every status)"
    return f"{100 * rate.rate:.1f} % [{100 * rate.interval.low:.1f}, {100 * rate.interval.high:.1f}]"

"""A finished probe whose every text was written by somebody who wants to break the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.report.test_report import HOSTILE
from verl_ispo.evaluation.grader import Grade
from verl_ispo.evaluation.questions import Question
from verl_ispo.probe.measures import measure
from verl_ispo.probe.preset_advantages import preset_rule, same_rules
from verl_ispo.probe.probe_files import ProbeResult, rollout_records
from verl_ispo.probe.probe_rollouts import Rollout
from verl_ispo.probe.regimes import judge
from verl_ispo.probe.scored_rollouts import ProbedTokenizer, find_answers, scored_rollouts
from verl_ispo.probe.scored_rows import Row, RowScores
from verl_ispo.probe.verdict_words import verdict_words
from verl_ispo.signals.token_texts import TokenTexts


def hostile_result() -> tuple[ProbeResult, list[dict[str, Any]]]:
    """The result, and its records of ``rollouts.jsonl``."""
    characters = sorted({character for text in HOSTILE for character in text} | set("\\boxed{3}<script>2</script>"))
    texts = TokenTexts(lambda token: characters[token])
    rollouts = [
        Rollout(
            question=Question("<i>b</i>", str(number), ({"role": "user", "content": text},), "<script>2</script>", {}),
            sample_index=index,
            prompt_ids=(0,),
            response_ids=tuple(characters.index(character) for character in written),
            text=written,
            cut=False,
            grade=Grade(float(index == 0), index == 0, "correct", "<b>3</b>" + text),
        )
        for number, text in enumerate(HOSTILE)
        for index, written in enumerate((text, text * 40, text + "\\boxed{3}"))
    ]

    def scores(rows: list[Row], _: str) -> list[RowScores]:
        return [RowScores((-0.5,) * len(row.tail), (0.5,) * len(row.tail)) for row in rows]

    def encode(text: str) -> list[int]:
        return [characters.index(character) for character in text]

    def decode(ids: Sequence[int]) -> str:
        return "".join(characters[token] for token in ids)

    tokenizer = ProbedTokenizer(texts, [], encode, decode)
    rules = same_rules(["ispo", "grpo"], {})
    answers = find_answers(rollouts, texts, preset_rule("ispo", {}).config, grades_lists=False)
    batch = scored_rollouts(rollouts, answers, tokenizer, scores, None)
    measures = measure(batch, rules)
    verdict = judge(measures)
    result = ProbeResult(
        model="<script>model</script>\u202e",
        data="</style><img src=x>",
        settings={"<b>": "<script>1</script>"},
        measures=measures,
        verdict=verdict,
        words=verdict_words(measures, verdict, False),
        undecided=1,
        made_at="now",
        version="0",
    )
    return result, rollout_records(rollouts, batch, rules)

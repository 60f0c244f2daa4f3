"""What the step's signals are computed from, where T ends before the rollout's trace does.

What goes wrong in general: the log-probs of another pass or row are taken, or those of the rollout are kept although T
is shorter.

Derivation: numbers by hand, one rollout that states its answer before and one that does not, verl's padding row between
them.

Not exercised: the passes themselves (test_answer_log_probs), everything behind `compute_ispo_reward` (tests/signals).
"""

from __future__ import annotations

import pytest
import torch

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.signals.answer_span import find_scored_answers
from verl_ispo.signals.running_ifd import RunningIFD
from verl_ispo.trainer.observation import observe
from verl_ispo.trainer.policy_pass import FoundAnswers, PolicyPass
from verl_ispo.trainer.step_batch import StepBatch

TEXTS = ["4 so \\boxed{4}", "padding", "5+6 \\boxed{11}"]


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


@pytest.mark.parametrize("trace_end", ["lead_in", "first_statement"])
def test_a_cut_trace_gives_its_own_log_probs(trace_end: str) -> None:
    config = ISPOConfig(trace_end=trace_end, exclude_answer_from_critical=True, answer_span="marked")
    responses = [torch.tensor(list(map(ord, text))) for text in TEXTS]
    scored = find_scored_answers([row.tolist() for row in responses], chr, config)
    assert scored.stated.tolist() == [trace_end == "first_statement", False, False]
    # a log-prob tells its row and position
    log_probs = [-torch.arange(len(row)) / 64 - number for number, row in enumerate(responses)]
    width = int(scored.spans.length.max())
    given = torch.full((3, width), -7.0) if trace_end == "first_statement" else None
    policy_pass = PolicyPass(
        keys=("a_0_0", "padding", "a_1_0"),
        answers=FoundAnswers((), tuple(responses), nested(responses), scored),
        ablated_log_prob=torch.full((3, width), -9.0),
        given_log_prob=given,
    )
    raw = {
        "responses": nested(responses),
        "old_log_probs": nested(log_probs),
        "ref_log_prob": nested(log_probs),
        "entropy": nested([torch.ones(len(row)) for row in responses]),
        "response_mask": nested([torch.ones(len(row)).long() for row in responses]),
        "rm_scores": nested([torch.eye(len(row))[-1] for row in responses]),
        "extra_fields": [{}, {}, {}],
    }
    step = StepBatch(("a_0_0", "a_1_0"), torch.tensor([0, 2]), 3, raw)
    observed = observe(step, policy_pass, config, RunningIFD(), end_of_sequence=[], trains_on_composite=True)

    own = [log_probs[row][int(scored.spans.start[row]) : int(scored.spans.end[row])] for row in (0, 2)]
    used = [torch.full_like(own[0], -7.0) if trace_end == "first_statement" else own[0], own[1]]
    for row, values in enumerate(used):
        assert observed.answer_log_prob[row, : len(values)].tolist() == values.tolist()
        assert observed.reward.measured_ifd[row].item() == pytest.approx(values.mean().item() + 9.0)
    assert observed.answers.spans.length.tolist() == [len("\\boxed{4}"), len("\\boxed{11}")]
    # A, the marker with its braces, is out of the entropy filter
    for row, text in enumerate((TEXTS[0], TEXTS[2])):
        chosen = observed.reward.entropy_mask[row].nonzero().flatten()
        assert len(chosen)
        assert (chosen < text.index("\\boxed")).all()

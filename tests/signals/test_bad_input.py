"""Bad input: refused by name, or given its defined value, and never passed on.

- NaN or infinity where a mask is true: an error with field, row and position. Where the mask is false anything goes
  (test_properties).
- Shapes that do not fit: an error that lists them.
- Degenerate batches (no row, no token, no answer, a group of one): the values that the method gives them.

The errors have to survive pickling, since Ray carries them from a worker to the driver.

Not exercised: the trainer's own message with step and rollout, and that nothing is written after it.
"""

from __future__ import annotations

import math
import pickle

import cloudpickle
import pytest
import torch

from verl_ispo import ISPOConfig, compute_ispo_reward
from verl_ispo.signals.checks import NonFiniteSignalError, SignalShapeError
from verl_ispo.signals.groups import RolloutGroups, group_advantage, guarded_reward

PER_TOKEN = ("log_prob", "ref_log_prob", "entropy")
PER_ANSWER_TOKEN = ("answer_log_prob", "ablated_answer_log_prob")


def good_inputs(batch: int = 3, length: int = 5, answer_length: int = 2) -> dict[str, torch.Tensor]:
    inputs = {
        "score": torch.ones(batch),
        "correct": torch.ones(batch, dtype=torch.bool),
        "response_mask": torch.ones(batch, length, dtype=torch.long),
        "answer_mask": torch.ones(batch, answer_length, dtype=torch.bool),
    }
    inputs.update({name: -torch.rand(batch, length) for name in PER_TOKEN})
    inputs.update({name: -torch.rand(batch, answer_length) for name in PER_ANSWER_TOKEN})
    return inputs


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", [*PER_TOKEN, *PER_ANSWER_TOKEN])
def test_not_finite(field: str, value: float) -> None:
    inputs = good_inputs()
    inputs[field][2, 1] = value
    inputs[field][1, 1] = value  # the first row counts
    with pytest.raises(NonFiniteSignalError) as caught:
        compute_ispo_reward(**inputs, config=ISPOConfig())
    error = caught.value
    assert (error.field, error.row, error.position) == (field, 1, 1)
    assert str(error.value) == str(value)
    for part in (field, "row 1", "position 1", str(value)):
        assert part in str(error)


def test_a_score_that_is_not_finite() -> None:
    inputs = good_inputs()
    inputs["score"][2] = math.nan
    with pytest.raises(NonFiniteSignalError, match="score is nan at row 2") as caught:
        compute_ispo_reward(**inputs, config=ISPOConfig())
    assert (caught.value.field, caught.value.row) == ("score", 2)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_errors_survive_the_way_through_ray(pickler: object) -> None:
    error = NonFiniteSignalError("entropy", row=3, position=7, value=math.inf)
    returned = pickler.loads(pickler.dumps(error))
    assert type(returned) is NonFiniteSignalError
    assert str(returned) == str(error)
    assert (returned.field, returned.row, returned.position, returned.value) == ("entropy", 3, 7, math.inf)


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("score", (4,)),
        ("score", (3, 1)),
        ("score", ()),
        ("log_prob", ()),
        ("answer_mask", ()),
        ("correct", (2,)),
        ("log_prob", (3, 4)),
        ("ref_log_prob", (2, 5)),
        ("entropy", (3, 6)),
        ("entropy", (3,)),
        ("response_mask", (1, 5)),
        ("answer_log_prob", (3, 3)),
        ("ablated_answer_log_prob", (2, 2)),
        ("answer_mask", (3, 1)),
    ],
)
def test_shapes_that_do_not_fit(field: str, shape: tuple[int, ...]) -> None:
    """Also where broadcasting would have made them fit."""
    inputs = good_inputs()
    inputs[field] = torch.ones(shape)
    with pytest.raises(SignalShapeError) as caught:
        compute_ispo_reward(**inputs, config=ISPOConfig())
    assert f"{field} {shape}" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.parametrize("name", ["log_prob", "answer_log_prob"])
@pytest.mark.parametrize("shape", [(3,), (3, 5, 2)])
def test_signals_need_rows_and_positions(name: str, shape: tuple[int, ...]) -> None:
    """A vector, or one dimension too many, in a whole family of tensors at once is no batch of sequences either."""
    inputs = good_inputs()
    family = (*PER_TOKEN, "response_mask") if name == "log_prob" else (*PER_ANSWER_TOKEN, "answer_mask")
    inputs.update({field: torch.ones(shape) for field in family})
    with pytest.raises(SignalShapeError, match=name):
        compute_ispo_reward(**inputs, config=ISPOConfig())


def test_a_candidate_mask_is_required_and_has_to_fit() -> None:
    config = ISPOConfig(exclude_answer_from_critical=True)
    with pytest.raises(ValueError, match="entropy_candidate_mask"):
        compute_ispo_reward(**good_inputs(), config=config)
    with pytest.raises(SignalShapeError, match="entropy_candidate_mask"):
        compute_ispo_reward(**good_inputs(), config=config, entropy_candidate_mask=torch.ones(3, 4))


@pytest.mark.parametrize(("batch", "length", "answer_length"), [(0, 5, 2), (0, 0, 0), (3, 0, 0), (3, 5, 0), (3, 0, 2)])
def test_empty_dimensions(batch: int, length: int, answer_length: int) -> None:
    """No row, no token, no answer token: no signal, so the reward is the score."""
    inputs = good_inputs(batch, length, answer_length)
    inputs["answer_mask"] = torch.zeros_like(inputs["answer_mask"])
    reward = compute_ispo_reward(**inputs, config=ISPOConfig(drift_threshold=100.0))
    assert torch.equal(reward.total, inputs["score"])
    assert reward.critical_mask.shape == (batch, length)
    assert not reward.answer_found.any()


def test_rows_of_padding_alone_have_their_score_and_no_signal() -> None:
    inputs = good_inputs()
    inputs["response_mask"][:] = 0
    inputs["answer_mask"][:] = False
    config = ISPOConfig(critical_selection="union", drift_threshold=-100.0)
    reward = compute_ispo_reward(**inputs, config=config)
    assert torch.equal(reward.total, inputs["score"])
    assert not reward.critical_mask.any()


@pytest.mark.parametrize("min_group_std", [0.0, 5.0])
def test_a_group_of_one_keeps_its_reward(min_group_std: float) -> None:
    """As in verl's GRPO, where its mean counts as 0 and its std as 1; a floor under the std is not for it."""
    groups = RolloutGroups.from_labels(["a", "b", "b"])
    rewards = torch.tensor([0.7, 1.0, 0.0])
    assert group_advantage(rewards, groups, False, min_group_std)[0].item() == pytest.approx(0.7)
    assert group_advantage(rewards, groups, True, min_group_std)[0].item() == pytest.approx(0.7, rel=1e-5)


def test_a_missing_answer_alone_in_its_group_keeps_its_reward() -> None:
    inputs = good_inputs(batch=1)
    inputs["answer_mask"][:] = False
    config = ISPOConfig(missing_answer="group_min", all_right_groups="off", all_wrong_groups="informative")
    reward = compute_ispo_reward(**inputs, config=config)
    guarded = guarded_reward(reward, inputs["correct"], RolloutGroups.from_labels(["q"]), config)
    assert torch.equal(guarded.total, inputs["score"])

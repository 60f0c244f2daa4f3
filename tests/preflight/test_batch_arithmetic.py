"""The divisibility checks against verl's assertions, rewritten here as plain loops over ranks and micro-batches.

Not exercised: that verl's workers stop there (read in its source).
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.preflight.set_ups import problems, with_settings
from verl_ispo.preflight.batch_sizes import check_batch_sizes
from verl_ispo.preflight.composition import read_parallelism
from verl_ispo.preflight.divisors import nearest_divisor, nearest_multiple

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


def blamed_by_loops(train: int, mini: int, samples: int, ranks: int, micro: int, log_prob_micro: int) -> set[str]:
    """Keys at which a step would stop: ranks get rows one by one, and use them one micro-batch at a time."""
    if dealt(mini * samples, ranks) is None:
        return {f"{ACTOR}.ppo_mini_batch_size"}
    blamed = set()
    if leftover(dealt(mini * samples, ranks), micro):
        blamed.add(f"{ACTOR}.ppo_micro_batch_size_per_gpu")
    rows = train * samples
    while rows % ranks or rows % (mini * samples):
        rows += 1  # verl's empty rows
    if leftover(dealt(rows, ranks), log_prob_micro):
        blamed |= {f"{section}.log_prob_micro_batch_size_per_gpu" for section in (ROLLOUT, "actor_rollout_ref.ref")}
    return blamed


def dealt(rows: int, ranks: int) -> int | None:
    """Rows of each rank, `None` if they are not the same."""
    hands = [0] * ranks
    for row in range(rows):
        hands[row % ranks] += 1
    return hands[0] if len(set(hands)) == 1 else None


def leftover(rows: int, micro: int) -> int:
    while rows >= micro:
        rows -= micro
    return rows


@settings(max_examples=examples(40))
@given(
    train=st.integers(1, 48),
    mini=st.integers(1, 32),
    samples=st.integers(2, 8),
    gpus=st.sampled_from([1, 2, 4, 8]),
    ulysses=st.sampled_from([1, 2]),
    micro=st.integers(1, 16),
    log_prob_micro=st.integers(1, 16),
)
def test_against_loops(train, mini, samples, gpus, ulysses, micro, log_prob_micro):
    if gpus % ulysses:
        return
    config = with_settings(
        (
            f"data.train_batch_size={train}",
            f"{ACTOR}.ppo_mini_batch_size={mini}",
            f"{ROLLOUT}.n={samples}",
            f"trainer.n_gpus_per_node={gpus}",
            f"{ACTOR}.ulysses_sequence_parallel_size={ulysses}",
            f"{ACTOR}.use_dynamic_bsz=false",
            f"{ACTOR}.ppo_micro_batch_size_per_gpu={micro}",
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu={log_prob_micro}",
        )
    )
    found = problems(check_batch_sizes(config, read_parallelism(config)))
    assert set(found) == blamed_by_loops(train, mini, samples, gpus // ulysses, micro, log_prob_micro)


@given(number=st.integers(1, 500), near=st.integers(1, 600))
def test_remedies_divide(number, near):
    divisor = nearest_divisor(number, near)
    assert number % divisor == 0
    assert divisor <= max(near, 1)
    assert not any(number % larger == 0 for larger in range(divisor + 1, min(near, number) + 1))
    multiple = nearest_multiple(number, near)
    assert multiple > 0
    assert multiple % number == 0
    assert abs(multiple - near) <= number

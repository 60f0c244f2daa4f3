"""A rollout's seed: from run seed, step, prompt and sample number, from each of them, and the same in every process.

Not exercised: where the trainer takes the four from (the trainer tests), and collisions, which 63 random bits leave
to chance: about 1 in 10 million for a million rollouts.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

from verl_ispo.cpu.rollout import CPURolloutServer
from verl_ispo.cpu.rollout_seed import rollout_seed

PARTS = (7, 3, ["12", [{"role": "user", "content": "6 * 7 = ? é"}]], 5)


def test_it_depends_on_each_part() -> None:
    others = [
        (8, *PARTS[1:]),
        (7, 4, *PARTS[2:]),
        (*PARTS[:2], ["13", PARTS[2][1]], 5),
        (*PARTS[:2], ["12", [{"role": "user", "content": "6 * 8 = ?"}]], 5),
        (*PARTS[:3], 6),
        (73, *PARTS[1:]),  # not by pasting the digits together: 7|3 against 73|...
        (7, 35, PARTS[2], 5),
    ]
    seeds = [rollout_seed(*parts) for parts in (PARTS, *others)]
    assert len(set(seeds)) == len(seeds)


def test_many_rollouts_have_seeds_of_their_own() -> None:
    seeds = {
        rollout_seed(1, step, prompt, sample) for step in range(10) for prompt in range(100) for sample in range(8)
    }
    assert len(seeds) == 8000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_order_of_a_messages_keys_is_no_part_of_it() -> None:
    one = rollout_seed(0, 0, [{"role": "user", "content": "x"}], 0)
    assert one == rollout_seed(0, 0, [{"content": "x", "role": "user"}], 0)


def test_it_is_the_same_in_every_process() -> None:
    """A literal from another process: a hash that Python salts, or an order that it does not keep, would miss it."""
    assert rollout_seed(*PARTS) == 134490170348460089


def server(seed: int = 1, step: int | None = 3) -> CPURolloutServer:
    made = object.__new__(CPURolloutServer)
    made.config, made.global_steps = SimpleNamespace(seed=seed), step
    made._unseeded, made._unseeded_step = Counter(), None
    return made


def test_requests_without_a_seed_have_seeds_of_their_own() -> None:
    """A data set may name verl's own agent loop, which gives none: all rollouts of a group were equal."""
    one = server()
    seeds = [one._seed_of([1, 2, 3], None) for _ in range(8)]
    assert len(set(seeds)) == 8
    assert one._seed_of([1, 2, 4], None) not in seeds
    assert one._seed_of([1, 2, 3], 7) == 7, "a request's own seed counts"
    assert [server()._seed_of([1, 2, 3], None) for _ in range(2)] == seeds[:1] * 2, "and a second run repeats them"
    one.global_steps = 4
    assert not set(seeds) & {one._seed_of([1, 2, 3], None) for _ in range(8)}

"""What a method's loss reads and leaves out, as it is put into verl's queue; and rows that keep prompts together.

- A column per rollout is on all its tokens; the groups' column tells prompts apart.
- What a method does not keep is 0 in both of verl's masks. The queue gives each field with lengths of its own, which
  torch does not take for equal ones, so the products are of values.
- With whole groups each worker gets whole prompts, as many as the others; a prompt with too few rollouts is refused.

Not exercised: verl's queue itself, and that a training uses what is stored: scripts/train_every_method.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from verl_ispo.methods.method import GROUP_COLUMN, Method, MethodBatch
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer import method_hooks
from verl_ispo.trainer.forward_rows import nested_rows
from verl_ispo.trainer.method_hooks import MethodHooksMixin, whole_groups_order
from verl_ispo.trainer.refusals import UnsupportedSettingError

LENGTHS = torch.tensor([3, 1, 2])


def queue_field(values: torch.Tensor) -> torch.Tensor:
    return nested_rows(values, LENGTHS.clone())


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(method_hooks, "store", lambda batch, **fields: found.update(fields))

    def fetch(batch: KVBatchMeta, names: list[str]) -> TensorDict:
        masks = {name: queue_field(torch.ones(6, dtype=torch.int64)) for name in ("response_mask", "loss_mask")}
        return TensorDict({"advantages": queue_field(torch.arange(6.0)), **masks}, batch_size=3)

    monkeypatch.setattr(method_hooks, "fetch", fetch)
    return found


def hand_over(method: Method) -> KVBatchMeta:
    mask = (torch.arange(3) < LENGTHS.unsqueeze(-1)).long()
    method_batch = MethodBatch(torch.zeros(3, 3), mask, RolloutGroups.from_labels(["a", "b", "a"]))
    batch = KVBatchMeta(keys=["a_0_0", "b_0_0", "a_1_0"], tags=[{}] * 3, partition_id="train", fields=["advantages"])
    trainer: Any = SimpleNamespace(method=method, _method_settings=None)
    MethodHooksMixin._hand_to_the_loss(trainer, batch, method_batch)
    return batch


def rows(values: torch.Tensor) -> list[list[float]]:
    return [row.tolist() for row in values.unbind()]


def test_columns_are_on_the_tokens_and_named_to_the_workers(stored: dict[str, torch.Tensor]) -> None:
    method = Method(
        name="made_up",
        advantage=lambda batch, settings: torch.zeros(3),
        loss_columns=lambda batch, settings, advantages: {
            "of_row": torch.tensor([5.0, 6.0, 7.0]),
            "twice": 2 * advantages,
        },
        whole_groups=True,
    )
    batch = hand_over(method)
    assert rows(stored["method_loss_of_row"]) == [[5, 5, 5], [6], [7, 7]]
    assert rows(stored["method_loss_twice"]) == [[0, 2, 4], [6], [8, 10]]
    assert rows(stored[f"method_loss_{GROUP_COLUMN}"]) == [[0, 0, 0], [1], [0, 0]]
    assert batch.fields == sorted(["advantages", *stored])


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (torch.tensor([True, False, True]), [[1, 1, 1], [0], [1, 1]]),
        (torch.tensor([[True, False, True]] * 3), [[1, 0, 1], [1], [1, 0]]),
    ],
)
def test_what_is_not_kept_leaves_both_masks(
    kept: torch.Tensor, expected: list[list[int]], stored: dict[str, torch.Tensor]
) -> None:
    hand_over(Method(name="made_up", advantage=lambda batch, settings: torch.zeros(3), keeps=lambda *_: kept))
    for name in ("response_mask", "loss_mask"):
        assert rows(stored[name]) == expected
        assert stored[name].dtype == torch.int64


def of_prompts(prompts: str, lengths: list[int]) -> KVBatchMeta:
    keys = [f"{prompt}_{number}_0" for number, prompt in enumerate(prompts)]
    return KVBatchMeta(keys=keys, tags=[{"seq_len": length} for length in lengths], partition_id="train")


def test_each_worker_gets_whole_prompts() -> None:
    prompts, lengths = "abcdabcd", [9, 1, 1, 1, 9, 1, 1, 1]
    order = whole_groups_order(of_prompts(prompts, lengths), rollouts_per_prompt=2, data_parallel_size=2)
    assert sorted(order) == list(range(8))
    in_order = "".join(prompts[row] for row in order)
    assert all(first == second for first, second in zip(in_order[::2], in_order[1::2], strict=True))


@pytest.mark.parametrize(("prompts", "workers"), [("aab", 1), ("aabbcc", 2)])
def test_prompts_that_do_not_divide_are_refused(prompts: str, workers: int) -> None:
    with pytest.raises(UnsupportedSettingError, match="compares all 2 rollouts of a prompt"):
        whole_groups_order(of_prompts(prompts, [1] * len(prompts)), 2, workers)

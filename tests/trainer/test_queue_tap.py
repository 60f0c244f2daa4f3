"""What verl's trainer reads and writes, seen on the way.

What goes wrong in general: a field is taken from another batch or in another order of rows, verl reads something else
than was meant for it, or its queue stays tapped after an error and the next step's traffic is taken for this one's.

Not exercised: the real queue (`scripts/bench_driver.py`, and every training of tests/training).
"""

from __future__ import annotations

import pytest
import torch
import transfer_queue
from tensordict import TensorDict
from verl.trainer.ppo.v1 import trainer_base

from verl_ispo.trainer.forward_rows import nested_rows
from verl_ispo.trainer.queue_tap import KeptFields, tapped_queue


def nested(*rows: list[float]) -> torch.Tensor:
    return nested_rows(torch.tensor([value for row in rows for value in row]), torch.tensor([len(row) for row in rows]))


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> dict[str, TensorDict]:
    """What was put, by the first key; reads give it again."""
    stored: dict[str, TensorDict] = {}

    def put(keys: list[str], partition_id: str, fields: TensorDict | None = None, tags: list | None = None) -> str:
        if fields is not None:
            stored[keys[0]] = fields
        return "meta"

    monkeypatch.setattr(transfer_queue, "kv_batch_put", put)
    monkeypatch.setattr(transfer_queue, "kv_batch_get", lambda keys, partition_id, select_fields: stored[keys[0]])
    return stored


def test_reads_can_be_changed_and_writes_are_kept(queue: dict[str, TensorDict]) -> None:
    kept = KeptFields(("entropy",))

    def double(keys: list[str], data: TensorDict) -> None:
        data["scores"] = data["scores"] * 2

    with tapped_queue(on_read=double, on_write=kept.keep):
        fields = TensorDict({"entropy": nested([1.0, 2.0], [3.0]), "scores": torch.ones(2)}, batch_size=2)
        assert trainer_base.tq.kv_batch_put(keys=["a", "b"], partition_id="train", fields=fields) == "meta"
        trainer_base.tq.kv_batch_put(keys=["a", "b"], partition_id="train", tags=[{}, {}])
        read = trainer_base.tq.kv_batch_get(keys=["a", "b"], partition_id="train", select_fields=["scores"])
    assert read["scores"].tolist() == [2.0, 2.0]
    assert kept.of(["a", "b"], "entropy") is fields["entropy"]
    assert kept.of(["a", "b"], "advantages") is None


def test_rows_come_in_the_order_that_is_asked_for() -> None:
    """The merged pass writes rollouts and ablated rows together."""
    kept = KeptFields(("entropy",))
    kept.keep(["a", "x", "b", "y"], TensorDict({"entropy": nested([1.0], [9.0], [2.0, 2.5], [8.0])}, batch_size=4))
    assert [row.tolist() for row in kept.of(["b", "a"], "entropy").unbind()] == [[2.0, 2.5], [1.0]]
    with pytest.raises(KeyError, match="'c'"):
        kept.of(["a", "c"], "entropy")


def test_the_queue_is_verls_own_again_after_an_error() -> None:
    before = trainer_base.tq

    def fail() -> None:
        with tapped_queue():
            assert trainer_base.tq.kv_clear is transfer_queue.kv_clear
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert trainer_base.tq is before

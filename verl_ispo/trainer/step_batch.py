"""A step's batch from verl's transfer queue: checked, padded, without verl's padding rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.forward_rows import nested_rows
from verl_ispo.trainer.outcome import correctness
from verl_ispo.trainer.refusals import UnsupportedSettingError

# in the extra fields of a rollout that is a trace of the data
IS_EXPERT = "ispo_expert"


def fetch(batch: KVBatchMeta, fields: Sequence[str]) -> TensorDict:
    """The fields of a batch; a field that no row has is left out."""
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))


def objects(data: TensorDict, name: str) -> list[Any]:
    """A field of Python objects, one per row; empty where there is no such field."""
    if name not in data.keys():  # noqa: SIM118 - a TensorDict iterates over rows
        return []
    return [getattr(value, "data", value) for value in data[name]]


def store(batch: KVBatchMeta, **fields: torch.Tensor) -> None:
    """Write fields of a batch, one value per row."""
    tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch.keys))
    )


@dataclass(frozen=True)
class StepBatch:
    """The rollouts of one update, verl's padding rows left out; `(rollouts, response_length)` unless said.

    Attributes:
        keys: verl's key of each rollout, ``{uid}_{session}_{output}``.
        rows: index of each rollout among verl's rows.
        verl_rows: how many rows verl has, padding included.
        raw: verl's fields, verl's rows.
    """

    keys: tuple[str, ...]
    rows: torch.Tensor
    verl_rows: int
    raw: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Whether the batch has a field."""
        return name in self.raw

    def padded(self, name: str) -> torch.Tensor:
        """A field of tokens, padded with 0 to the longest of verl's rows."""
        return self._rollouts(self.raw[name].to_padded_tensor(0))

    def tokens(self, name: str) -> list[torch.Tensor]:
        """A field of tokens, one tensor without padding per rollout."""
        rows = self.raw[name].unbind()
        return [rows[row] for row in self.rows.tolist()]

    def column(self, name: str) -> list[Any]:
        """A field of objects, one per rollout."""
        values = self.raw[name]
        return [values[row] for row in self.rows.tolist()]

    def _rollouts(self, values: torch.Tensor) -> torch.Tensor:
        """The rows of the rollouts among verl's; the same tensor where verl has no others."""
        return values if len(self.rows) == self.verl_rows else values[self.rows]

    def on_verls_rows(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the rollouts, placed on verl's rows; padding rows get 0."""
        if len(self.rows) == self.verl_rows:
            return values
        out = torch.zeros(self.verl_rows, *values.shape[1:], dtype=values.dtype)
        return out.index_copy(0, self.rows, values)

    @cached_property
    def groups(self) -> RolloutGroups:
        """Which rollouts share a prompt."""
        return RolloutGroups.from_labels([prompt_of(key) for key in self.keys])

    @cached_property
    def score(self) -> torch.Tensor:
        """The scorer's score, `(rollouts,)`."""
        return self.padded("rm_scores").sum(dim=-1)

    @cached_property
    def correct(self) -> torch.Tensor:
        """The verifier's verdict, `(rollouts,)` bool."""
        return correctness(self.score, [_reward_extra_info(fields) for fields in self.column("extra_fields")])

    @cached_property
    def expert(self) -> torch.Tensor:
        """Which rollouts are traces of the data, `(rollouts,)` bool."""
        return torch.tensor([bool(fields.get(IS_EXPERT)) for fields in self.column("extra_fields")], dtype=torch.bool)

    @cached_property
    def response_mask(self) -> torch.Tensor:
        """Where the policy wrote the token, bool."""
        return self._rollouts(nested_rows(self.raw["response_mask"].values().bool(), self._lengths).to_padded_tensor(0))

    @property
    def _lengths(self) -> torch.Tensor:
        return self.raw["response_mask"].offsets().diff()


def step_batch(batch: KVBatchMeta, raw: Mapping[str, Any]) -> StepBatch:
    """The rollouts of a batch, with verl's fields of it.

    Raises:
        UnsupportedSettingError: an agent loop has given several outputs in one session.
    """
    rows = rollout_rows(batch)
    keys = tuple(batch.keys[row] for row in rows)
    # verl's keys read {prompt}_{session}_{output}; its own GRPO counts only the last output of a session.
    several = [key for key in keys if key.rsplit("_", 1)[-1] != "0"]
    if several:
        raise UnsupportedSettingError(
            f"rollout {several[0]} is a further output of its session: agent loops with several outputs per session "
            "are not supported by ISPO, whose groups count each output as a rollout"
        )
    return StepBatch(keys, torch.tensor(rows, dtype=torch.long), len(batch), raw)


def rollout_rows(batch: KVBatchMeta) -> list[int]:
    """Indices of the rows that are no padding of verl's."""
    return [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]


def prompt_of(key: str) -> str:
    """The part of verl's key that the rollouts of a prompt share."""
    return key.rsplit("_", 2)[0]


def on_last_token(rewards: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """One reward per row on the last token that the policy wrote, zeros elsewhere.

    Args:
        rewards (`torch.Tensor` of shape `(rows,)`).
        response_mask (nested `torch.Tensor`): one value per token.

    Returns:
        nested `torch.Tensor` of the mask's shape.
    """
    mask, offsets = response_mask.values(), response_mask.offsets()
    written = mask.nonzero().squeeze(-1)
    # how many written tokens there are up to each row's end, so that the last of them is the row's, if it has one
    up_to = torch.searchsorted(written, offsets)
    has_one = up_to.diff() > 0
    values = torch.zeros(len(mask))
    values[written[up_to[1:][has_one] - 1]] = rewards[has_one].to(values.dtype)
    return nested_rows(values, offsets.diff())


def _reward_extra_info(extra_fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return extra_fields.get("reward_extra_info") or {}

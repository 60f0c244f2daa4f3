"""Traces of the data as rollouts: each takes one of its prompt's n places, and is graded and trained on like others.

A trace is "written" by an agent loop of its own (`ExpertTraceLoop`), so that verl's workers tokenize and grade it as
they do rollouts. It is asked for after the step's own rollouts, as hinted rollouts are
(`verl_ispo.trainer.hinted_rollouts`), so what those need is needed here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from verl_ispo.trainer.hinted_rollouts import (
    ROLLOUTS,
    HintedRolloutsMixin,
    for_one_rollout,
    missing_columns,
    move_rollouts,
)
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.step_batch import IS_EXPERT, objects, prompt_of

AGENT_LOOP = "ispo_expert_trace"
# the field with the trace's text, in the rows that the agent loop gets
TRACE = "ispo_trace"


@register(AGENT_LOOP)
class ExpertTraceLoop(AgentLoopBase):
    """Gives the trace as the response, up to the longest response; a whole one ends with the end of sequence."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """The trace in ``kwargs`` as a rollout of the prompt there; no sampling parameter has an effect."""
        prompt_ids = await self.ct_build_initial_tokens(list(kwargs["raw_prompt"]))
        trace = [*self.tokenizer.encode(kwargs[TRACE], add_special_tokens=False), self.tokenizer.eos_token_id]
        response_ids = trace[: self.rollout_config.response_length]
        # of the weights that write this step's rollouts, as verl numbers them
        version = int(kwargs["global_steps"]) - 1
        return AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            response_mask=[1] * len(response_ids),
            multi_modal_data={},
            mm_processor_kwargs=None,
            mm_processor_output=None,
            num_turns=2,
            metrics=AgentLoopMetrics(),
            extra_fields={
                "min_global_steps": version,
                "max_global_steps": version,
                "turn_scores": [],
                "tool_rewards": [],
                IS_EXPERT: True,
            },
        )


class ExpertTracesMixin(HintedRolloutsMixin):
    """verl's V1 trainer, in which the method may have traces of the data among the rollouts."""

    @property
    def _trace_column(self) -> str | None:
        """The column of traces; `None` where the method reads none."""
        if self.method is None or self.method.trace_column is None:
            return None
        return self.method.trace_column(self._method_settings)

    @property
    def _changes_batches(self) -> bool:
        return super()._changes_batches or self._trace_column is not None

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        column = self._trace_column
        if column is not None and column not in self.train_dataset[0]:
            raise UnsupportedSettingError(missing_columns(self.method.name, "traces", [column], "trace_column"))

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        if self._trace_column is not None and ROLLOUTS not in batch.keys():  # noqa: SIM118 - of a TensorDict
            numbers = [self._places - bool(trace_text(cell)) for cell in objects(batch, self._trace_column)]
            tu.assign_non_tensor(batch, **{ROLLOUTS: numbers})
        return super()._submit_batch_to_rollout(batch)

    @property
    def _places(self) -> int:
        return int(self.config.actor_rollout_ref.rollout.n)

    def _changed(self, batch: KVBatchMeta, drawn: Sequence[TensorDict]) -> tuple[KVBatchMeta, dict[str, float]]:
        batch, metrics = super()._changed(batch, drawn)
        if self._trace_column is None:
            return batch, metrics
        with marked_timer("expert_traces", self.timing_raw):
            rows, prompts = self._trace_rows(drawn, set(map(prompt_of, batch.keys)))
            if rows:
                batch = self._with_traces(batch, tu.concat_tensordict(rows), prompts)
        return batch, {**metrics, f"{self.method.name}/traces": float(len(rows))}

    def _trace_rows(self, drawn: Sequence[TensorDict], prompts: set[str]) -> tuple[list[TensorDict], list[str]]:
        """verl's rows for the traces of some prompts, and the prompts that have one, by verl's names."""
        rows, of_prompts = [], []
        for of_draw in drawn:
            traces = map(trace_text, objects(of_draw, self._trace_column))
            for row, (prompt, trace) in enumerate(zip(of_draw["uid"], traces, strict=True)):
                if trace and prompt in prompts:
                    item = tu.index_select_tensor_dict(of_draw, torch.tensor([row]))
                    rows.append(for_one_rollout(item, agent_name=AGENT_LOOP, **{TRACE: trace}))
                    of_prompts.append(prompt)
        return rows, of_prompts

    def _with_traces(self, batch: KVBatchMeta, rows: TensorDict, prompts: Sequence[str]) -> KVBatchMeta:
        """The batch with the traces as the last rollouts of their prompts.

        Raises:
            RuntimeError: a trace could not be tokenized or graded; verl has logged why.
        """
        names = list(rows["uid"])
        found = self._further_rollouts(rows)
        tag_of = {prompt_of(key): (key, tag) for key, tag in zip(found.keys, found.tags, strict=True)}
        if len(tag_of) < len(names):
            raise RuntimeError(
                f"{len(names) - len(tag_of)} of {len(names)} traces of the data were not graded; the agent loops' log "
                "says why"
            )
        moved = {f"{prompt}_{self._places - 1}_0": tag_of[name] for prompt, name in zip(prompts, names, strict=True)}
        move_rollouts(batch.partition_id, moved, without=[TRACE])
        tags = [tag for _, tag in moved.values()]
        return KVBatchMeta(
            keys=[*batch.keys, *moved],
            tags=[*batch.tags, *tags],
            partition_id=batch.partition_id,
            extra_info=batch.extra_info,
        )


def trace_text(cell: Any) -> str:
    """The trace in a cell of the data: a text, or the first of a list of texts or chat messages; `""` for none."""
    first = cell if isinstance(cell, str) else next(iter(cell), "") if cell is not None else ""
    text = first.get("content") if isinstance(first, dict) else first
    return str(text or "").strip()

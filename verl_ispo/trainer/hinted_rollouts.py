"""Rollouts of prompts with hints, for groups without a correct rollout, before a step's batch is balanced and scored.

They go the way of all rollouts: verl's trainer hands the hinted prompts to the same agent loops, one rollout each, and
its replay buffer waits for them. That has to be after the step's own rollouts and before the engine drops its weights,
so it happens inside the trainer's call of ``replay_buffer.sample``. In verl's synchronous mode nothing else is in the
queue then; in its other modes there is, so they are refused (`verl_ispo.trainer.refusals`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer

from verl_ispo.methods.method import HintedRollouts, Message
from verl_ispo.trainer.prompt_selection import PromptSelectionMixin
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.step_batch import StepBatch, fetch, objects, prompt_of, step_batch

# the field by which verl's agent loops are told the number of rollouts of one prompt
ROLLOUTS = "__rollout_n__"


@dataclass(frozen=True)
class HintedPrompt:
    """One prompt with a hint.

    Attributes:
        group: verl's name of the prompt without one.
        messages: of the prompt with the hint.
    """

    group: str
    messages: Sequence[Message]


class SamplingThen:
    """verl's replay buffer, with something done to each training batch right after it is sampled."""

    def __init__(self, buffer: Any, then: Callable[[KVBatchMeta], tuple[KVBatchMeta, dict[str, float]]]) -> None:
        self._buffer = buffer
        self._then = then

    def __getattr__(self, name: str) -> Any:
        # whatever else verl or a budget asks of the buffer
        return getattr(self._buffer, name)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """As verl's, which says what the arguments are."""
        batch, metrics = self._buffer.sample(
            global_steps=global_steps, partition_id=partition_id, batch_size=batch_size
        )
        if partition_id == "train":
            batch, more = self._then(batch)
            metrics = {**metrics, **more}
        return batch, metrics


class HintedRolloutsMixin(PromptSelectionMixin):
    """verl's V1 trainer, in which the method may replace rollouts by hinted ones."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        # this step's rows of the data
        self._drawn_rows: list[TensorDict] = []

    @property
    def _hints(self) -> HintedRollouts | None:
        return None if self.method is None else self.method.hinted_rollouts

    @property
    def _changes_batches(self) -> bool:
        """Whether the method has something done to each batch that is sampled."""
        return self._hints is not None

    def _setup(self) -> None:
        super()._setup()
        if self._changes_batches:
            self._waiting_buffer = self.replay_buffer
            self.replay_buffer = SamplingThen(self.replay_buffer, self._after_sampling)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        if self._hints is not None:
            columns = self._hints.columns(self._method_settings)
            if not set(columns) & set(self.train_dataset[0]):
                raise UnsupportedSettingError(missing_columns(self.method.name, "hints", columns, "hint_columns"))

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        batch = super()._next_train_batch(num_prompts)
        if self._changes_batches:
            self._drawn_rows.append(batch)
        return batch

    def _after_sampling(self, batch: KVBatchMeta) -> tuple[KVBatchMeta, dict[str, float]]:
        drawn, self._drawn_rows = self._drawn_rows, []
        return self._changed(batch, drawn)

    def _changed(self, batch: KVBatchMeta, drawn: Sequence[TensorDict]) -> tuple[KVBatchMeta, dict[str, float]]:
        """The batch with hinted rollouts, in the queue too, and metrics; ``drawn`` are the rows of the data."""
        if self._hints is None or not self._hints.begins(int(self.global_steps), self._method_settings):
            return batch, {}
        with marked_timer("hinted_rollouts", self.timing_raw):
            groups = groups_without_correct(graded(batch))
            asked, too_long, rows = self._hinted_prompts(list(groups), drawn, self._method_settings)
            replaced: dict[str, tuple[str, dict, int]] = {}
            if asked:
                replaced = self._ask(asked, tu.concat_tensordict(rows))
                tag_of = dict(zip(batch.keys, batch.tags, strict=True))
                self._count_thrown_away(tag_of[groups[group]] for group in replaced)
                put_in_place(batch, {groups[group]: found[:2] for group, found in replaced.items()})
        name = f"{self.method.name}/hints"
        metrics = {
            f"{name}/all_incorrect_groups": float(len(groups)),
            f"{name}/rollouts": float(len(asked)),
            f"{name}/too_long": float(too_long),
            f"{name}/replaced_rollouts": float(len(replaced)),
        }
        if replaced:
            levels = [level for _, _, level in replaced.values()]
            metrics[f"{name}/level/mean"] = sum(levels) / len(levels)
        return batch, metrics

    def _hinted_prompts(
        self, groups: Sequence[str], drawn: Sequence[TensorDict], settings: Any
    ) -> tuple[list[HintedPrompt], int, list[TensorDict]]:
        """The hinted prompts of some groups, how many others are too long, and verl's rows for them."""
        asked: list[HintedPrompt] = []
        rows: list[TensorDict] = []
        too_long, columns = 0, self._hints.columns(settings)
        row_of = {uid: (batch, row) for batch in drawn for row, uid in enumerate(batch["uid"])}
        for group in groups:
            batch, row = row_of[group]
            item = tu.index_select_tensor_dict(batch, [row])
            messages, parts = list(objects(item, "raw_prompt")[0]), hint_parts(item, columns)
            for hinted in self._hints.prompts(messages, parts, settings):
                if len(self._prompt_builder.build_initial_tokens(list(hinted))) > self._longest_prompt:
                    too_long += 1
                    continue
                asked.append(HintedPrompt(group, hinted))
                rows.append(for_one_rollout(item, raw_prompt=[dict(message) for message in hinted]))
        return asked, too_long, rows

    @property
    def _longest_prompt(self) -> int:
        return int(self.config.actor_rollout_ref.rollout.prompt_length)

    def _further_rollouts(self, rows: TensorDict) -> KVBatchMeta:
        """One rollout for each of verl's rows, written before this returns; failed ones are missing."""
        self._submit_batch_to_rollout(rows)
        return self._waiting_buffer.sample(global_steps=self.global_steps, partition_id="train", batch_size=len(rows))[
            0
        ]

    def _ask(self, asked: Sequence[HintedPrompt], rows: TensorDict) -> dict[str, tuple[str, dict, int]]:
        """Have one rollout written for each hinted prompt; by group the key, tag and level of the one to take."""
        uids = list(rows["uid"])
        hinted = self._further_rollouts(rows)
        step = graded(hinted)
        row_of = {prompt_of(key): row for row, key in enumerate(step.keys)}
        correct = step.correct.tolist()
        taken: dict[str, tuple[str, dict, int]] = {}
        levels: dict[str, list[str]] = {}
        for one, uid in zip(asked, uids, strict=True):
            levels.setdefault(one.group, []).append(uid)
        for group, of_group in levels.items():
            # a rollout that has failed is missing, and not correct
            verdicts = [uid in row_of and correct[row_of[uid]] for uid in of_group]
            level = self._hints.choose(verdicts)
            if level is not None:
                row = row_of[of_group[level]]
                taken[group] = (step.keys[row], hinted.tags[row], level)
        left = set(hinted.keys) - {key for key, _, _ in taken.values()}
        if left:
            self._count_thrown_away(tag for key, tag in zip(hinted.keys, hinted.tags, strict=True) if key in left)
            tq.kv_clear(keys=sorted(left), partition_id=hinted.partition_id)
        return taken

    def _count_thrown_away(self, tags: Iterable[dict]) -> None:
        """Rollouts that are not trained on count for a budget, as those do that verl throws away."""
        self._waiting_buffer.thrown_away_tokens += sum(tag.get("seq_len", 0) for tag in tags)


def missing_columns(method: str, what: str, columns: Sequence[str], key: str) -> str:
    """What to say where the data has none of the columns that a method reads."""
    return (
        f"adv_estimator={method} reads {what} from the data, and data.train_files has no column "
        f"{' or '.join(columns)}. Prepare the data with --keep_columns {' '.join(columns)}, or name what it has in "
        f"algorithm.{method}.{key}."
    )


def hint_parts(row: TensorDict, columns: Sequence[str]) -> dict[str, list[str]]:
    """The texts in the columns that one row of the data has, by column; a cell may be a list of texts or one text."""
    cells = {column: objects(row, column) for column in columns}
    return {
        column: [found[0]] if isinstance(found[0], str) else list(map(str, found[0] or ()))
        for column, found in cells.items()
        if found
    }


def for_one_rollout(row: TensorDict, **changes: Any) -> TensorDict:
    """One row of the data under a name of its own, with other values in some fields, for one rollout."""
    other = row.clone(recurse=False)
    own = {"uid": str(uuid.uuid4()), ROLLOUTS: 1, **changes}
    tu.assign_non_tensor(other, **{name: [value] for name, value in own.items()})
    return other


def graded(batch: KVBatchMeta) -> StepBatch:
    """The rollouts of a sampled batch with what the scorer said of them."""
    data = fetch(batch, ["rm_scores", "extra_fields"])
    return step_batch(batch, {"rm_scores": data["rm_scores"], "extra_fields": objects(data, "extra_fields")})


def groups_without_correct(step: StepBatch) -> dict[str, str]:
    """The prompts without a correct rollout, by verl's name, each with the key of its first rollout."""
    first: dict[str, str] = {}
    all_wrong = step.groups.all_wrong(step.correct)[step.groups.ids].tolist()
    for key, wrong in zip(step.keys, all_wrong, strict=True):
        if wrong and (prompt_of(key) not in first or session_of(key) < session_of(first[prompt_of(key)])):
            first[prompt_of(key)] = key
    return first


def session_of(key: str) -> int:
    """Number of a rollout within its group, from verl's key ``{prompt}_{session}_{output}``."""
    return int(key.rsplit("_", 2)[1])


def put_in_place(batch: KVBatchMeta, replaced: Mapping[str, tuple[str, dict]]) -> None:
    """Have some keys of a batch stand for other rollouts, which then belong to the keys' prompts; sets the tags too.

    Args:
        batch (`KVBatchMeta`).
        replaced (`Mapping[str, tuple[str, dict]]`): as in `move_rollouts`.
    """
    move_rollouts(batch.partition_id, replaced, gone=list(replaced))
    row_of = {key: row for row, key in enumerate(batch.keys)}
    for key, (_, tag) in replaced.items():
        batch.tags[row_of[key]] = tag


def move_rollouts(
    partition_id: str, moved: Mapping[str, tuple[str, dict]], gone: Sequence[str] = (), without: Sequence[str] = ()
) -> None:
    """Give rollouts in the queue other keys, and the prompts of those.

    Args:
        partition_id (`str`): verl's.
        moved (`Mapping[str, tuple[str, dict]]`): by new key, the rollout's key until now, and its tag.
        gone (`Sequence[str]`, *optional*): keys whose rollouts are removed first.
        without (`Sequence[str]`, *optional*): fields that the rollouts lose.
    """
    if not moved:
        return
    samples = []
    for key, (before, _) in moved.items():
        sample = tq.kv_batch_get(keys=[before], partition_id=partition_id)[0]
        own = {"uid": prompt_of(key), "session_id": session_of(key)}
        samples.append({name: sample[name] for name in sample.keys() if name not in without} | own)  # noqa: SIM118
    # cleared first, so that nothing of a rollout that goes stays beside the one that comes
    tq.kv_clear(keys=[*gone, *(before for before, _ in moved.values())], partition_id=partition_id)
    tq.kv_batch_put(
        keys=list(moved),
        partition_id=partition_id,
        fields=tu.list_of_dict_to_tensordict(samples),
        tags=[tag for _, tag in moved.values()],
    )

"""What PREPO's hook hands to verl: how many candidates, and rows in the form that verl's ``compute_log_prob`` takes.

And the draws without a forward, on verl's own way from its data loader to a batch: by SPO's state, and CoDaPO's prompts
that are repeated, after a restart too, each under a name of its own.

The rules by which prompts are chosen are in tests/methods; that a training chooses by them, in tests/training.

Not exercised: a vision-language prompt, and a GPU on which the rollout engine holds its memory during the pass.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn
from verl.workers.utils.padding import response_from_nested

from verl_ispo.methods.codapo import CoDaPOState
from verl_ispo.methods.method import MethodBatch
from verl_ispo.methods.registry import methods
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.prompt_selection import PromptSelectionMixin, candidate_count, prompt_key, prompt_rows
from verl_ispo.trainer.refusals import UnsupportedSettingError


@pytest.mark.parametrize(
    ("kept", "keep_fraction", "drawn_at_once", "candidates"),
    [(16, 0.2, 16, 80), (512, 0.2, 512, 2560), (16, 1.0, 16, 16), (16, 0.3, 16, 64), (10, 0.25, 8, 40)],
)
def test_candidates_are_whole_draws_of_the_data_loader(
    kept: int, keep_fraction: float, drawn_at_once: int, candidates: int
) -> None:
    assert candidate_count(kept, keep_fraction, drawn_at_once) == candidates


def test_a_prompts_first_token_has_no_log_prob_and_all_others_do() -> None:
    rows = prompt_rows([[5, 6, 7], [8, 9]], row_multiple=1)
    assert [row.tolist() for row in rows["input_ids"].unbind()] == [[5, 6, 7], [8, 9]]
    assert [row.tolist() for row in rows["responses"].unbind()] == [[6, 7], [9]]
    assert [row.tolist() for row in rows["position_ids"].unbind()] == [[0, 1, 2], [0, 1]]
    # verl's passes return for each token the log-prob of the next one; here the position itself stands for it.
    output = torch.nested.as_nested_tensor([torch.arange(3.0), torch.arange(2.0)], layout=torch.jagged)
    found = response_from_nested(output, rows["response_mask"])
    assert [row.tolist() for row in found.unbind()] == [[0.0, 1.0], [0.0]]


def test_a_prompt_of_one_token_has_a_stand_in() -> None:
    rows = prompt_rows([[5]], row_multiple=1)
    assert [row.tolist() for row in rows["input_ids"].unbind()] == [[5, 5]]


@pytest.mark.parametrize(("row_multiple", "rows"), [(1, 3), (2, 4), (3, 3), (8, 8)])
def test_rows_divide_among_workers_and_micro_batches(row_multiple: int, rows: int) -> None:
    found = prompt_rows([[1, 2], [3, 4], [5, 6, 7]], row_multiple)
    assert len(found) == rows
    assert [row.tolist() for row in found["input_ids"].unbind()][3:] == [[5, 6, 7]] * (rows - 3)


class DrawingTrainer(PromptSelectionMixin):
    """verl's trainer with a data loader of eight prompts, two at once; a prompt's text is its token id."""

    on_sample_end = on_step_end = None

    def __init__(self, method: str, kept: int, **settings: float) -> None:
        self.method = methods()[method]
        self.prompt_choice = self.method.prompt_choice
        self._choice_settings = self.method.read_settings(settings)
        self._keep_fraction = self.prompt_choice.keep_fraction(self._choice_settings)
        self._selection_metrics, self._prompt_keys, self._last_drawn = {}, {}, None
        self._prompt_builder = SimpleNamespace(build_initial_tokens=lambda messages: [7, int(messages[0]["content"])])
        self.method_states = {method: self.method.state.kind()}
        self.global_steps = 1
        self.config = OmegaConf.create(
            {
                "data": {"train_batch_size": kept, "gen_batch_size": 2},
                "actor_rollout_ref": {"rollout": {"prompt_length": 16}},
            }
        )
        self.train_dataset = [
            {"raw_prompt": [{"role": "user", "content": str(number)}], "dummy": torch.tensor([number])}
            for number in range(8)
        ]
        self.train_dataloader = StatefulDataLoader(self.train_dataset, batch_size=2, collate_fn=collate_fn)
        self.train_dataloader_it = None

    def next_step(self, outcomes: dict[int, list[bool]] | None = None) -> list[int]:
        """The numbers of the prompts that are drawn; their rollouts then have the outcomes."""
        drawn = self._next_train_batch()
        assert len(set(drawn["uid"])) == len(drawn)
        assert tu.get_non_tensor_data(drawn, "global_steps", None) == self.global_steps
        numbers = drawn["dummy"].flatten().tolist()
        verdicts = outcomes or {number: [True, False] for number in numbers}
        rows = [(number, verdict) for number in dict.fromkeys(numbers) for verdict in verdicts[number]]
        batch = MethodBatch(
            rewards=torch.zeros(len(rows), 1),
            response_mask=torch.ones(len(rows), 1),
            groups=RolloutGroups.from_labels([number for number, _ in rows]),
            correct=torch.tensor([verdict for _, verdict in rows]),
            log_prob=torch.zeros(len(rows), 1),
            prompt_keys=[prompt_key([7, number]) for number, _ in rows],
        )
        name = self.method.name
        self.method_states[name] = self.method.state.update(self.method_states[name], batch, self._choice_settings)
        self.global_steps += 1
        return numbers


def test_a_draw_by_the_state_needs_no_forward() -> None:
    trainer = DrawingTrainer("spo", kept=2, keep_fraction=0.25)
    numbers = trainer.next_step()
    assert len(set(numbers)) == 2
    assert trainer._selection_metrics == {"spo/weight/candidates": 0.55, "spo/weight/kept": 0.55}
    trainer.next_step()
    # the keys of the candidates are those of the answered prompts
    assert set(trainer.method_states["spo"].counts) >= {prompt_key([7, number]) for number in numbers}


def test_a_solved_prompt_is_drawn_less_often() -> None:
    trainer = DrawingTrainer("spo", kept=2, keep_fraction=0.25, exploration=1e-3)
    for solved in range(4):
        trainer.method_states["spo"].counts[prompt_key([7, solved])] = [8.0, 1e-9]
    drawn = [number for _ in range(10) for number in trainer.next_step({number: [False] for number in range(8)})]
    assert sum(number >= 4 for number in drawn[:8]) == 8


def test_a_key_is_that_of_the_tokens_that_are_answered() -> None:
    """verl's agent loops keep the last `prompt_length` tokens."""
    trainer = DrawingTrainer("spo", kept=2, keep_fraction=1.0)
    trainer.config.actor_rollout_ref.rollout.prompt_length = 1
    assert trainer._prompt_key([{"role": "user", "content": "5"}]) == prompt_key([5])


def test_every_second_step_repeats_the_best_prompts_of_the_step_before() -> None:
    trainer = DrawingTrainer("codapo", kept=4)
    mixed = {number: [True, False] for number in (2, 6)}
    outcomes = {number: [True, True] for number in range(8)} | mixed
    assert trainer.next_step(outcomes) == [0, 1, 2, 3]
    assert not trainer._selection_metrics
    assert trainer.next_step(outcomes) == [2, 2, 2, 2]
    assert trainer._selection_metrics == pytest.approx({"codapo/weight/candidates": 0.35, "codapo/weight/kept": 1.1})
    assert trainer.next_step(outcomes) == [4, 5, 6, 7]
    assert trainer.next_step(outcomes) == [6, 6, 6, 6]


def test_after_a_restart_the_repeated_prompts_are_found_in_the_data() -> None:
    before = DrawingTrainer("codapo", kept=4)
    outcomes = {number: [number == 1, False] for number in range(8)}
    before.next_step(outcomes)
    after = DrawingTrainer("codapo", kept=4)
    after.global_steps = 2
    after.method_states["codapo"] = before.method_states["codapo"]
    assert after.next_step(outcomes) == before.next_step(outcomes) == [1, 1, 1, 1]


def test_repeated_prompts_that_are_not_in_the_data_are_refused() -> None:
    trainer = DrawingTrainer("codapo", kept=4)
    trainer.method_states["codapo"] = CoDaPOState({prompt_key([7, 3]): 0.5, prompt_key([7, 99]): 0.6})
    with pytest.raises(UnsupportedSettingError, match=r"codapo repeats 2 prompts .*has 1 of them"):
        trainer.next_step()

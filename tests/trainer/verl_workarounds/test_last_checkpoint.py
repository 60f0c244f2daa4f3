"""The last step that was trained is saved, whatever ends verl's own loop: its steps, its data, or a request.

verl's ``fit`` runs as it is; what it calls in a step is replaced by notes. Not exercised: a training without a saving
frequency, which saves nothing, and a training that fails in a step.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from tests.examples import examples
from verl_ispo.runs.checkpoint_folder import ask_to_stop, is_asked_to_stop
from verl_ispo.trainer.verl_workarounds.tensorboard_restart import mark_restart
from verl_ispo.trainer.verl_workarounds.trainer_workarounds import TrainerWorkarounds


class Loop(TrainerWorkarounds):
    """verl's loop alone; `trained` and `saved` are steps."""

    def __init__(self, folder: Path, steps: int | None, of_data: int, epochs: int, save_freq: int, begun: int) -> None:
        self.config = OmegaConf.create(
            {
                "trainer": {
                    **{"project_name": "p", "experiment_name": "e", "logger": ["console"], "total_epochs": epochs},
                    **{"total_training_steps": steps, "save_freq": save_freq, "test_freq": -1},
                    **{"val_before_train": False, "default_local_dir": str(folder)},
                },
                "global_profiler": {"steps": None},
                "actor_rollout_ref": {"actor": {}},
            }
        )
        self.global_steps, self._last_step, self._of_data = begun, None, of_data
        self.replay_buffer = SimpleNamespace()
        self.trained: list[int] = []
        self.saved: list[int] = []
        self.asked_in: int | None = None
        self._init_dataloader()

    def on_step_end(self) -> None:
        pass

    def on_sample_end(self) -> None:
        pass


def nothing(*_: Any, **__: Any) -> dict:
    return {}


@pytest.fixture(scope="module", autouse=True)
def verls_loop_alone() -> Any:
    def data(trainer: Loop) -> None:
        trainer.steps_per_epoch = trainer._of_data
        of_data = trainer._of_data * trainer.config.trainer.total_epochs
        trainer.total_training_steps = trainer.config.trainer.total_training_steps or of_data

    def step(trainer: Loop, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        trainer.trained.append(trainer.global_steps)
        if trainer.global_steps == trainer.asked_in:
            ask_to_stop(Path(trainer.config.trainer.default_local_dir))
        return KVBatchMeta(keys=["a"], tags=[{}], partition_id="train")

    def save(trainer: Loop) -> None:
        trainer.saved.append(trainer.global_steps)

    with pytest.MonkeyPatch.context() as patch:
        quiet = SimpleNamespace(log=nothing, logger={})
        patch.setattr(trainer_base, "Tracking", lambda **_: quiet)
        patch.setattr(trainer_base, "SkipManager", SimpleNamespace(init=nothing, set_step=nothing))
        patch.setattr(trainer_base.tq, "kv_clear", nothing)
        for name in ("_start_profiling", "_stop_profiling", "_compute_metrics", "_shutdown_dump_executor"):
            patch.setattr(PPOTrainer, name, nothing)
        for name in ("_reissue_inflight_prompts", "_consume_sync_metrics"):
            patch.setattr(PPOTrainer, name, nothing)
        patch.setattr(PPOTrainer, "_get_n_gpus_for_throughput", lambda _: 1)
        patch.setattr(PPOTrainer, "_init_dataloader", data)
        patch.setattr(PPOTrainer, "step", step)
        patch.setattr(PPOTrainer, "_save_checkpoint", save)
        yield


def trained(folder: Path, *, asked_in: int | None = None, **settings_: Any) -> Loop:
    loop = Loop(folder, **{"begun": 0, "epochs": 100, "of_data": 100, **settings_})
    loop.asked_in = asked_in
    loop.fit(None)
    return loop


@pytest.mark.parametrize(
    ("given_", "last", "saved"),
    [
        ({"steps": 5, "save_freq": 2}, 5, [2, 4, 5]),
        ({"steps": 9, "save_freq": 2, "of_data": 5, "epochs": 1}, 5, [2, 4, 5]),  # the steps after 4 were lost
        ({"steps": 9, "save_freq": 50, "of_data": 3, "epochs": 2}, 6, [6]),
        ({"steps": 9, "save_freq": 50, "of_data": 3, "epochs": 2, "begun": 4}, 6, [6]),
        ({"steps": 9, "save_freq": 50, "of_data": 3, "epochs": 2, "begun": 6}, 6, []),
        ({"steps": None, "save_freq": 50, "of_data": 3, "epochs": 1}, 3, [3]),
        ({"steps": 9, "save_freq": 50, "asked_in": 4}, 4, [4]),
        ({"steps": 9, "save_freq": 2, "asked_in": 4}, 4, [2, 4]),
        ({"steps": 9, "save_freq": 50, "asked_in": 9}, 9, [9]),
        ({"steps": 9, "save_freq": -1, "asked_in": 4}, 4, []),
    ],
)
def test_the_last_step_is_saved_once(tmp_path: Path, given_: dict[str, Any], last: int, saved: list[int]) -> None:
    """Where the data ended before the steps, or nobody waited for the next multiple, the steps in between were lost."""
    loop = trained(tmp_path, **given_)
    assert loop.trained == list(range(given_.get("begun", 0) + 1, last + 1))
    assert loop.saved == saved
    assert not is_asked_to_stop(tmp_path)


@given(
    steps=st.none() | st.integers(1, 12),
    save_freq=st.integers(1, 9),
    of_data=st.integers(1, 5),
    epochs=st.integers(1, 4),
    begun=st.integers(0, 6),
    asked_in=st.none() | st.integers(1, 12),
)
@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_ends_it_the_last_step_is_saved_once(tmp_path: Path, **chosen: Any) -> None:
    loop = trained(tmp_path, **chosen)
    assert loop.saved == sorted(set(loop.saved))
    assert loop.trained[-1:] == loop.saved[-1:]


def test_a_resumed_run_is_one_curve_in_tensorboard(tmp_path: Path) -> None:
    """Steps after the checkpoint that an earlier start had logged were drawn twice, as a line that runs back."""

    def start(first: int, last: int, value: float) -> None:
        writer = SummaryWriter(str(tmp_path), filename_suffix=f".{value}")
        adapter = SimpleNamespace(writer=writer)
        mark_restart(SimpleNamespace(logger=SimpleNamespace(logger={"tensorboard": adapter}), global_steps=first))
        for step in range(first, last + 1):
            writer.add_scalar("a", value, step)
        writer.close()

    start(1, 6, 1.0)
    start(4, 8, 2.0)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [
        *((step, 1.0) for step in (1, 2, 3)),
        *((step, 2.0) for step in (4, 5, 6, 7, 8)),
    ]


def test_without_tensorboard_nothing_is_marked() -> None:
    mark_restart(SimpleNamespace(logger=SimpleNamespace(logger={}), global_steps=5))

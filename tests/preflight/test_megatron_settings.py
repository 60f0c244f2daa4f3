"""Settings with which Megatron stops after minutes, or computes something else, are problems before anything starts.

What goes wrong in general: a size divides the GPUs and not the model. Megatron then ends in an assertion on the worker,
or takes a padded vocabulary into the softmax. tests/megatron runs each of these with the engine itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.composed import composed
from tests.examples import examples
from tests.preflight.set_ups import problems, with_settings, write_model
from verl_ispo.preflight.composition import read_parallelism
from verl_ispo.preflight.megatron_settings import OVERRIDE, PIPELINE, VIRTUAL, check_learning_rate, check_megatron_model
from verl_ispo.preflight.model_shape import read_model_shape

ACTOR = "actor_rollout_ref.actor"
TENSOR = f"{ACTOR}.megatron.tensor_model_parallel_size"
FIRST = f"{OVERRIDE}.num_layers_in_first_pipeline_stage"


def found(folder: Path, *overrides: str, bridge: str = "0.5.1", **model: int | bool) -> dict[str, str]:
    shape = {"vocab_size": 260, "num_hidden_layers": 4, "tie_word_embeddings": False}
    path = write_model(folder / "model", **(shape | model))
    config = with_settings([f"actor_rollout_ref.model.path={path}", *overrides], composed(name="ispo_megatron_trainer"))
    shape = read_model_shape(config)
    return problems(check_megatron_model(config, read_parallelism(config), shape, {"megatron-bridge": bridge}.get))


@pytest.mark.parametrize(
    ("overrides", "model", "key", "said"),
    [
        ((f"{TENSOR}=2",), {"vocab_size": 259}, TENSOR, "vocabulary of 259"),
        ((f"{TENSOR}=2", f"{OVERRIDE}.should_pad_vocab=true"), {}, f"{OVERRIDE}.should_pad_vocab", "multiple of 8"),
        ((f"{PIPELINE}=2",), {"num_hidden_layers": 3}, PIPELINE, f"3 layers. Set {PIPELINE}=1"),
        ((f"{PIPELINE}=2", f"{VIRTUAL}=4"), {}, VIRTUAL, f"2 layers of a stage. Set {VIRTUAL}=2"),
        ((f"{PIPELINE}=2", f"{VIRTUAL}=2"), {"tie_word_embeddings": True}, VIRTUAL, "head is its embedding"),
        ((f"{VIRTUAL}=2",), {}, VIRTUAL, "without a pipeline"),
    ],
)
def test_what_stops_megatron(
    tmp_path: Path, overrides: tuple[str, ...], model: dict[str, int | bool], key: str, said: str
) -> None:
    problem = found(tmp_path, *overrides, **model)
    assert problem.keys() == {key}
    assert said in problem[key]


@pytest.mark.parametrize(
    ("overrides", "model"),
    [
        ((), {"vocab_size": 259, "num_hidden_layers": 3}),
        ((f"{TENSOR}=2", f"{PIPELINE}=2"), {}),
        ((f"{PIPELINE}=2", f"{VIRTUAL}=2"), {}),
        ((f"{PIPELINE}=2", f"{FIRST}=1"), {"num_hidden_layers": 3}),
        ((f"{PIPELINE}=2",), {"tie_word_embeddings": True}),
        ((f"{TENSOR}=2", f"{OVERRIDE}.should_pad_vocab=true"), {"vocab_size": 512}),
    ],
)
def test_what_megatron_runs(tmp_path: Path, overrides: tuple[str, ...], model: dict[str, int | bool]) -> None:
    assert found(tmp_path, *overrides, **model) == {}


def test_a_later_bridge_may_load_tied_embeddings_onto_a_virtual_pipeline(tmp_path: Path) -> None:
    assert found(tmp_path, f"{PIPELINE}=2", f"{VIRTUAL}=2", bridge="0.5.2", tie_word_embeddings=True) == {}


@settings(max_examples=examples(25), deadline=None)
@given(layers=st.integers(1, 24), stages=st.integers(1, 8), virtual=st.none() | st.integers(1, 6))
def test_layers_are_divided_or_reported(
    layers: int, stages: int, virtual: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sizes = (f"{PIPELINE}={stages}", f"{VIRTUAL}={'null' if virtual is None else virtual}")
    problem = found(tmp_path_factory.mktemp("model"), *sizes, num_hidden_layers=layers)
    runs = layers % (stages * (virtual or 1)) == 0 and not (stages == 1 and virtual is not None)
    assert (problem == {}) == runs


def test_a_schedule_that_would_begin_again() -> None:
    def of(*overrides: str) -> dict[str, str]:
        return problems(check_learning_rate(with_settings(overrides, composed(name="ispo_megatron_trainer"))))

    warm_up, decay = f"{ACTOR}.optim.lr_warmup_steps", f"{ACTOR}.optim.lr_decay_style"
    switch = f"{ACTOR}.optim.use_checkpoint_opt_param_scheduler=true"
    assert of() == {}
    assert of(f"{warm_up}=5", switch) == of(f"{warm_up}=5", "trainer.resume_mode=disable") == {}
    assert switch in of(f"{warm_up}=5")[warm_up]
    assert switch in of(f"{decay}=cosine")[decay]
    assert problems(check_learning_rate(with_settings([f"{warm_up}=5"], composed()))) == {}

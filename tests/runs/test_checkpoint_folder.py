"""Which checkpoint a run resumes from: the newest whole one of this run and this number of ranks, or a refusal.

Derivation: verl's `find_latest_ckpt_path` turns its note into a folder, or into none where that folder is missing, and
its checkpoint managers load what `load_contents` (by default what was saved) names. The files here are those that
`FSDPCheckpointManager` and `MegatronCheckpointManager` write, with made-up contents. Not exercised: loading them
(tests/training, tests/megatron), disks that lose whole files.
"""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.composed import composed
from tests.examples import examples
from verl_ispo.runs.checkpoint_folder import (
    LATEST_STEP_FILE,
    PARTS,
    Resumption,
    Sizes,
    megatron_sizes,
    note_latest,
    noted_step,
    resumption,
)
from verl_ispo.user_error import UserError


def saved_state() -> bytes:
    """A file as verl writes its data loader's state."""
    file = io.BytesIO()
    torch.save({"position": 3}, file)
    return file.getvalue()


STATE = saved_state()


def checkpoint(
    folder: Path, step: int, *, ranks: int = 1, parts: tuple[str, ...] = PARTS, state: bytes = STATE
) -> Path:
    """A checkpoint of FSDP, or what is left when a run is killed while writing it (`state` is cut off then)."""
    path = folder / f"global_step_{step}"
    (path / "actor").mkdir(parents=True)
    for part, rank in itertools.product(parts, range(ranks)):
        (path / "actor" / f"{part}_world_size_{ranks}_rank_{rank}.pt").write_bytes(b"x")
    (path / "data.pt").write_bytes(state)
    return path


def note(folder: Path, text: str) -> None:
    (folder / LATEST_STEP_FILE).write_text(text)


def test_the_noted_step_is_resumed_where_it_is_whole(tmp_path: Path) -> None:
    assert resumption(tmp_path, 1) == Resumption(0)
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 10)
    note(tmp_path, "9")
    assert resumption(tmp_path, 1) == Resumption(9), "10 may have been saved by a run that was set back by hand"


@pytest.mark.parametrize("text", ["", "\x00\x00", "12"])
def test_a_note_that_names_no_checkpoint_gives_the_newest_whole_one(text: str, tmp_path: Path) -> None:
    """verl fails on the first two, and starts from the beginning over whole checkpoints with the third."""
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 11, state=b"")
    note(tmp_path, text)
    found = resumption(tmp_path, 1)
    assert found.step == 10
    assert "the newest whole checkpoint is of step 10" in found.note
    note_latest(tmp_path, found.step)
    assert resumption(tmp_path, 1) == Resumption(10)


@pytest.mark.parametrize("parts", [(), ("model",), PARTS])
@pytest.mark.parametrize("noted", [None, ""])
def test_a_run_that_was_killed_in_its_first_save_starts_from_the_beginning(
    parts: tuple[str, ...], noted: str | None, tmp_path: Path
) -> None:
    checkpoint(tmp_path, 1, parts=parts, state=b"")
    if noted is not None:
        note(tmp_path, noted)
    assert resumption(tmp_path, 1).step == 0
    note_latest(tmp_path, 0)
    assert noted_step(tmp_path) is None


@settings(max_examples=examples(30), deadline=None)
@given(left=st.integers(0, len(STATE) - 1))
def test_a_state_cut_off_anywhere_is_not_whole(left: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """verl would load it, fail, and fail again at every start, since there is no note yet."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint(folder, 1, state=STATE[:left])
    assert resumption(folder, 1).step == 0


@pytest.mark.parametrize(
    ("parts", "lacks"),
    [((), "no state to train on"), (("model",), "no optim, extra_state of every rank"), (("optim",), "no model")],
)
def test_what_cannot_be_resumed_is_refused(parts: tuple[str, ...], lacks: str, tmp_path: Path) -> None:
    """verl would go on with the base model's weights, or with a new optimizer."""
    checkpoint(tmp_path, 2, parts=parts)
    note(tmp_path, "2")
    with pytest.raises(UserError, match=lacks) as refused:
        resumption(tmp_path, 1)
    assert "save model, optimizer and extra" in str(refused.value)


def test_another_number_of_ranks_is_refused_with_both(tmp_path: Path) -> None:
    checkpoint(tmp_path, 2, ranks=1)
    checkpoint(tmp_path, 4, ranks=1)
    note(tmp_path, "4")
    with pytest.raises(UserError, match=r"state of 1 rank\(s\), and this start has 2; start with as many ranks"):
        resumption(tmp_path, 2)
    assert resumption(tmp_path, 1) == Resumption(4)


def test_a_note_without_any_checkpoint_is_refused(tmp_path: Path) -> None:
    note(tmp_path, "5")
    with pytest.raises(UserError, match="there is no checkpoint of step 5"):
        resumption(tmp_path, 1)


def megatron_checkpoint(folder: Path, step: int, sizes: Sizes = (2, 1, 1)) -> Path:
    """A checkpoint of Megatron in verl's layout of version 2, as it is after a save."""
    path = checkpoint(folder, step, parts=())
    contents = {"model": "model/huggingface", "optimizer": "optimizer/dist_ckpt", "rng_state": "extra/dist_ckpt"}
    for place in contents.values():
        (path / "actor" / place).mkdir(parents=True)
        (path / "actor" / place / "part").touch()
    names = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "virtual_pipeline_model_parallel_size")
    config = dict(zip(names, sizes, strict=True)) | {"virtual_pipeline_model_parallel_size": None}
    (path / "actor/transformer_config.json").write_text(json.dumps(config))
    manifest = {"contents": {name: {"path": place} for name, place in contents.items()}}
    (path / "actor/ckpt_contents.json").write_text(json.dumps(manifest))
    return path


def test_megatron_takes_any_number_of_ranks_and_its_own_sizes(tmp_path: Path) -> None:
    """Another number of data-parallel ranks resumes number for number, another tensor-parallel size not at all
    (tests/megatron); verl's error speaks of the shapes of tensors then.
    """
    megatron_checkpoint(tmp_path, 3)
    note(tmp_path, "3")
    for ranks in (2, 8):
        assert resumption(tmp_path, ranks, (2, 1, 1)) == Resumption(3)
    with pytest.raises(UserError, match=r"state of 2 x 1 x 1 \(.*, and this start has 4 x 1 x 1 .* sizes that it was"):
        resumption(tmp_path, 8, (4, 1, 1))


@pytest.mark.parametrize(
    ("removed", "lacks"),
    [
        ("ckpt_contents.json", r"no actor/ckpt_contents\.json"),
        ("transformer_config.json", r"no actor/transformer_config\.json"),
        ("optimizer/dist_ckpt/part", "nothing in actor/optimizer/dist_ckpt"),
        ("model/huggingface/part", "nothing in actor/model/huggingface"),
    ],
)
def test_megatron_needs_all_of_its_state(tmp_path: Path, removed: str, lacks: str) -> None:
    path = megatron_checkpoint(tmp_path, 3)
    note(tmp_path, "3")
    (path / "actor" / removed).unlink()
    with pytest.raises(UserError, match=lacks) as refused:
        resumption(tmp_path, 2, (2, 1, 1))
    assert "save model, optimizer and extra" in str(refused.value)


def test_the_sizes_of_a_start() -> None:
    assert megatron_sizes(composed().actor_rollout_ref.actor) is None
    key = "actor_rollout_ref.actor.megatron.virtual_pipeline_model_parallel_size"
    config = composed(f"{key}=2", name="ispo_megatron_trainer")
    assert megatron_sizes(config.actor_rollout_ref.actor) == (1, 1, 2)


@settings(max_examples=examples(30), deadline=None)
@given(
    saved=st.dictionaries(st.integers(1, 6), st.tuples(st.sets(st.sampled_from(PARTS)), st.booleans()), max_size=4),
    noted=st.one_of(st.none(), st.integers(1, 6)),
)
def test_never_a_checkpoint_that_is_not_whole(saved, noted, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("run")
    for step, (parts, complete) in saved.items():
        checkpoint(folder, step, parts=tuple(parts), state=STATE if complete else b"")
    if noted is not None:
        note(folder, str(noted))
    whole = {step for step, (parts, complete) in saved.items() if parts == set(PARTS) and complete}
    try:
        step = resumption(folder, 1).step
    except UserError:
        assert not whole
        return
    assert step in whole or (step == 0 and not whole)
    if noted in whole:
        assert step == noted

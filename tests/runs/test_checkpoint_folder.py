"""Which checkpoint a run resumes from: the newest whole one of this run and this number of ranks, or a refusal.

Derivation: verl's `find_latest_ckpt_path` turns its note into a folder, or into none where that folder is missing, and
its checkpoint managers load what `load_contents` (by default what was saved) names. The files here are those that
`FSDPCheckpointManager` and Megatron's distributed checkpoint write, with made-up contents. Not exercised: loading them
(tests/training), disks that lose whole files.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.runs.checkpoint_folder import (
    LATEST_STEP_FILE,
    PARTS,
    Resumption,
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


def test_megatron_needs_its_states_and_takes_any_number_of_ranks(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 3, parts=())
    note(tmp_path, "3")
    with pytest.raises(UserError, match="nothing in actor/dist_ckpt"):
        resumption(tmp_path, 8, is_megatron=True)
    (path / "actor/dist_ckpt").mkdir()
    (path / "actor/dist_ckpt/__0_0.distcp").touch()
    for ranks in (1, 8):
        assert resumption(tmp_path, ranks, is_megatron=True) == Resumption(3)


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

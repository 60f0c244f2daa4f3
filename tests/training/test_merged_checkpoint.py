"""A checkpoint that verl's own trainer wrote (two FSDP2 workers on a CPU), merged by verl's own tool.

- The merged weights are the shards' (verl's merger writes bfloat16), and the folder can be sampled from.
- The merge is done once, and again when the shards have changed; where that fails, nothing half-made is left behind.

Megatron's checkpoints are in tests/megatron, an adapter's in tests/trainer/test_engine_features.py. Not exercised: a
kill in the middle of the merge (it works in a folder of its own that is renamed at the end).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import TrainingRun
from verl_ispo.evaluation.merged_checkpoint import MERGE_RECORD, MERGED_FOLDER
from verl_ispo.evaluation.model_folder import resolve_checkpoint
from verl_ispo.user_error import UserError

pytestmark = pytest.mark.trainer


def whole_weights(actor: Path) -> dict[str, torch.Tensor]:
    """The weights put together from the two ranks' shards without verl's merger."""
    shards = [torch.load(actor / f"model_world_size_2_rank_{rank}.pt", weights_only=False) for rank in (0, 1)]
    return {
        name: torch.cat([shard[name].to_local() for shard in shards], dim=shards[0][name].placements[0].dim)
        for name in shards[0]
    }


def test_a_checkpoint_of_two_workers_is_merged_once(
    two_workers: TrainingRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    checkpoints = tmp_path / "run"
    shutil.copytree(two_workers.checkpoints, checkpoints)
    actor = checkpoints / "global_step_1" / "actor"

    checkpoint = resolve_checkpoint(str(checkpoints))
    assert (checkpoint.folder, checkpoint.step, checkpoint.rule) == (actor / MERGED_FOLDER, 1, "last step")
    assert "Merging" in capsys.readouterr().out
    merged, expected = load_file(checkpoint.folder / "model.safetensors"), whole_weights(actor)
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name].bfloat16()) for name in merged)

    record = (checkpoint.folder / MERGE_RECORD).stat().st_mtime_ns
    assert resolve_checkpoint(str(checkpoints / "global_step_1")) == checkpoint
    assert (checkpoint.folder / MERGE_RECORD).stat().st_mtime_ns == record
    assert "Merging" not in capsys.readouterr().out

    # a changed shard is noticed, although there is a merged model
    (actor / "model_world_size_2_rank_1.pt").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"(?s)verl's merger failed on .*actor \(exit status 1\):.*Error"):
        resolve_checkpoint(str(checkpoints))
    assert not (actor / f".{MERGED_FOLDER}.unfinished").exists()

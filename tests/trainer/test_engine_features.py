"""verl's features for memory, speed and adapters do not change what ISPO reads: log-probs, entropies, ablated answers.

The real worker of verl (``ActorRolloutRefWorker``, FSDP2 on the CPU) without the trainer around it, on a random model
of the tiny task: four rollouts and their trace-ablated rows, at temperature 0.7, before and after one update. The
reference is the same worker's plain setting, which test_training runs in verl's trainer; test_ablated_rows compares
the ablated answers with a forward by hand.

- the rollouts and their ablated rows in one pass give what two passes give (`trainer.v1.ispo.ablated_pass`);
- gradient checkpointing, offload, packed sequences with micro-batches by tokens, chunked and checkpointed entropy,
  fused kernels (torch), and two ranks give the same numbers, the update's gradient included;
- LoRA: a new adapter changes nothing; after the update the policy has moved, and the adapter switched off is bitwise
  the base model;
- what verl gets wrong is what is refused, or a problem of the preflight: Ulysses' sequence parallelism without flash
  attention, fused kernels where FSDP2 shards the output head on its own.

Megatron on the same rows is tests/megatron. Not exercised: FSDP1, flash attention, Liger, triton kernels, mixed
precision, activation offload and torch.compile, which need a GPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.engine_ranks import Variant, assert_same, end_of_fsdp, start_fsdp, write_random_model
from tests.trainer.engine_rows import log_probs_in_transformers
from verl_ispo.evaluation.model_folder import resolve_checkpoint

pytestmark = pytest.mark.trainer


def run_engine(folder: Path, tied: bool, variants: tuple[str, ...], ranks: int = 1) -> list[dict[str, Variant]]:
    """The variants on a new random model, for each rank."""
    write_random_model(folder, tie_word_embeddings=tied)
    return end_of_fsdp(folder, start_fsdp(folder, variants, ranks))


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variant]:
    """A model with an output head of its own, as Qwen2.5-7B."""
    variants = ("plain", "gradient_checkpointing", "offload", "entropy_checkpointing", "packed", "entropy", "lora")
    return run_engine(tmp_path_factory.mktemp("untied"), False, (*variants, "fused"))[0]


@pytest.mark.parametrize("variant", ["gradient_checkpointing", "offload", "entropy_checkpointing"])
def test_what_saves_memory_changes_no_bit(untied: dict[str, Variant], variant: str) -> None:
    assert len(untied["plain"]) == 11
    assert_same(untied[variant], untied["plain"], tolerance=0)


@pytest.mark.parametrize("variant", ["plain", "packed", "lora"])
def test_one_pass_over_rollouts_and_ablated_rows(untied: dict[str, Variant], variant: str) -> None:
    found = untied[variant]
    for name in ("log_probs", "entropy", "answer"):
        torch.testing.assert_close(found[f"merged_{name}"], found[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["packed", "entropy"])
def test_packed_sequences_and_micro_batches_by_tokens(untied: dict[str, Variant], variant: str) -> None:
    assert_same(untied[variant], untied["plain"], tolerance=1e-3)


def test_the_base_model_is_the_adapter_switched_off(untied: dict[str, Variant]) -> None:
    plain, lora = untied["plain"], untied["lora"]
    for name in ("log_probs", "entropy", "answer"):
        assert torch.equal(lora[name], plain[name])
    assert (lora["updated"] - plain["log_probs"]).abs().max() > 0.1
    assert torch.equal(lora["adapter_off"], plain["log_probs"])


@pytest.mark.volume
def test_the_evaluation_of_an_adapter_is_of_the_trained_policy(tmp_path: Path) -> None:
    """verl's merger leaves the adapter beside the weights, which alone are the base model's; it writes bfloat16."""
    lora = run_engine(tmp_path, False, ("lora",))[0]["lora"]
    found = log_probs_in_transformers(resolve_checkpoint(str(tmp_path / "lora/global_step_1")).folder)
    assert (lora["updated"] - lora["log_probs"]).abs().max() > 0.5
    torch.testing.assert_close(found, lora["updated"], rtol=0.05, atol=0.05)


def test_fused_kernels_on_a_head_that_fsdp2_shards_on_its_own(untied: dict[str, Variant]) -> None:
    """Why the preflight calls it a problem."""
    assert "DTensor" in untied["fused"]["error"]


def test_fused_kernels_on_a_tied_head(tmp_path: Path) -> None:
    found = run_engine(tmp_path, True, ("plain", "fused", "fused_packed"))[0]
    for variant in ("fused", "fused_packed"):
        assert_same(found[variant], found["plain"], tolerance=1e-3)


def test_two_ranks_and_a_sequence_split_without_flash_attention(untied: dict[str, Variant], tmp_path: Path) -> None:
    """Split by rows they agree with one rank; split by tokens, with the attention that a CPU has, they do not."""
    ranks = run_engine(tmp_path, False, ("plain", "ulysses"), ranks=2)
    plain = untied["plain"]
    lengths = plain["lengths"].tolist()
    rows = plain["log_probs"].split(lengths)
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found["plain"]["log_probs"], torch.cat(rows[rank::2]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found["plain"]["grad_norm"], plain["grad_norm"], rtol=1e-4, atol=1e-4)
    wrong = (ranks[0]["ulysses"]["log_probs"] - plain["log_probs"]).abs()
    assert wrong[: lengths[0]].max() < 1e-3
    assert wrong.max() > 0.1

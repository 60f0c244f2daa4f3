"""verl's own Megatron engine computes what its FSDP2 engine computes: log-probs, entropies, ablated answers, updates.

Megatron divides a model by heads, layers, positions or rows, pads and packs on its own, and has its own optimizer and
checkpoints; ISPO's extra rows and its reference, the adapter switched off, go through all of that. What goes wrong in
general: a row is computed with another row's tokens or with a part of the model, and every number stays plausible.

Derivation: the reference is FSDP2 on one rank, in its plain setting, on the same random model in Hugging Face form
(grouped heads, four layers) and the same rows (tests/trainer/engine_process.py); test_ablated_rows compares that with
a forward by hand. In float32 only the order of sums differs: 1e-5, and 1e-3 after an update, where Adam's first step,
the gradient's sign, turns the rounding of the smallest gradients into steps. (An update moves log-probs by more than
1.) Weight decay is 0, since Megatron leaves biases and norms out of it. bfloat16 has 8 bits: 0.05, and 0.3 after an
update. A checkpoint is sound if the update after a resumption is that of the run that went on, and if transformers
computes the trained policy's log-probs from the folder that the evaluation finds.

Megatron runs on a CPU by an import hook (tests/megatron/on_cpu), with plain torch in the place of Transformer Engine.

Not exercised: Transformer Engine itself and its kernels, flash attention, NCCL and the overlap of its transfers, expert
parallelism and router replay, fused kernels, offload to the host, CUDA graphs, FP8, Megatron-FSDP, vanilla mbridge,
more than two ranks and therefore tensor, pipeline, context and data parallelism together, models other than Qwen2.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from tests.megatron.environment import with_megatron
from tests.trainer.engine_ranks import Variant, assert_same, end_of_fsdp, start_fsdp, write_random_model
from tests.trainer.engine_rows import log_probs_in_transformers
from tests.trainer.ports import ON_CPU
from verl_ispo.evaluation.model_folder import resolve_checkpoint

pytestmark = pytest.mark.trainer
TIMEOUT_S = 400

# Forms of the engine_process's models; "untied" has them all.
SHAPE = {"num_hidden_layers": 4, "num_key_value_heads": 2, "vocab_size": 260}
MODELS = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "one_group": {"num_key_value_heads": 1},
    "three_layers": {"num_hidden_layers": 3},
    "odd_vocabulary": {"vocab_size": 259},
}
OF_MODEL = {
    **{"tied": "tied", "pipeline_tied": "tied", "virtual_tied": "tied"},
    **{"tensor_one_group": "one_group", "pipeline_uneven": "three_layers", "padded_vocabulary": "odd_vocabulary"},
}
EXACT = ("padded", "packed", "dynamic", "recompute", "chunked_entropy", "tied")
ON_TWO_RANKS = ("tensor", "tensor_dynamic", "pipeline", "virtual_pipeline", "context")
SHORT = (*EXACT, "resumed", "bfloat16", "lora", "lora_resumed", *ON_TWO_RANKS, "data")
MORE_EXACT = ("tensor_one_group", "pipeline_tied", "pipeline_uneven", "context_padded")
REFUSED = ("vocabulary", "layers", "virtual_layers", "virtual_alone", "virtual_tied", "fewer_tensor_ranks")
WARM_UPS = ("warm_up", "warm_up_resumed", "warm_up_over_again")
MORE = (
    *(*MORE_EXACT, "tensor_resumed", "lora_weights", "tensor_lora", "fewer_data_ranks", "padded_vocabulary"),
    *(*WARM_UPS, *REFUSED),
)
FORWARDS = ("log_probs", "entropy", "answer", "merged_log_probs", "merged_entropy", "merged_answer")
UPDATES = ("grad_norm", "updated", "updated_twice")


class Found:
    """What Megatron's variants and FSDP2 gave, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, variant: str) -> Variant:
        """All ranks' rows of one variant, in their order."""
        ranks = [torch.load(self.folder / f"{variant}.{rank}.pt") for rank in (0, 1) if self.has(variant, rank)]
        return join_rows([found for found in ranks if found])

    def has(self, variant: str, rank: int) -> bool:
        return (self.folder / f"{variant}.{rank}.pt").exists()

    def fsdp(self, variant: str) -> Variant:
        """FSDP2's numbers for a variant's model."""
        return torch.load(self.folder / OF_MODEL.get(variant, "untied") / "0.pt")["plain"]

    def run(self, variants: Iterable[str], models: Iterable[str]) -> None:
        """Run the variants of engine_process, and FSDP2 on these models beside them."""
        for model in models:
            write_random_model(self.folder / model, **(SHAPE | MODELS[model]))
        log = self.folder / "megatron.log"
        with log.open("w") as output:  # a pipe would be held open by whatever a rank has started
            megatron = subprocess.Popen(
                [sys.executable, "-m", "tests.megatron.forked_ranks", str(self.folder), *variants],
                env=with_megatron({**os.environ, **ON_CPU}),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            for model in models:
                end_of_fsdp(self.folder / model, start_fsdp(self.folder / model, ("plain",)))
            status = megatron.wait(timeout=TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(megatron.pid, signal.SIGKILL)
        assert status == 0, log.read_text()[-5000:]


def join_rows(ranks: list[Variant]) -> Variant:
    """Rows that data-parallel ranks took in turn, put together again; the rows of one rank as they are."""
    if len(ranks) == 1 or "error" in ranks[0]:
        return ranks[0]
    lengths = [found["lengths"].tolist() for found in ranks]
    joined = {}
    for name, value in ranks[0].items():
        if name in ("log_probs", "entropy", "updated", "updated_twice", "merged_log_probs", "merged_entropy"):
            rows = [found[name].split(sizes) for found, sizes in zip(ranks, lengths, strict=True)]
            joined[name] = torch.cat([row for turn in zip(*rows, strict=True) for row in turn])
        elif name == "lengths":
            joined[name] = torch.stack([found[name] for found in ranks], dim=1).flatten()
        elif name == "grad_norm":
            joined[name] = value
    return joined


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    found = Found(tmp_path_factory.mktemp("megatron"))
    found.run(SHORT, ("untied", "tied"))
    return found


@pytest.fixture(scope="module")
def more(found: Found) -> Found:
    found.run(MORE, ("one_group", "three_layers", "odd_vocabulary"))
    return found


def assert_fsdps(found: Found, variant: str, forwards: float = 1e-5, updates: float = 1e-3) -> None:
    numbers, expected = found.of(variant), found.fsdp(variant)
    shared = [name for name in (*FORWARDS, *UPDATES) if name in numbers]
    assert len(shared) >= 7
    for name in shared:
        bound = updates if name in UPDATES else forwards
        torch.testing.assert_close(numbers[name].float(), expected[name], rtol=bound, atol=bound, msg=name)
    assert (expected["updated"] - expected["log_probs"]).abs().max() > 1, "the update shows"


@pytest.mark.parametrize("variant", [*EXACT, *ON_TWO_RANKS, "data"])
def test_megatron_gives_fsdps_numbers(found: Found, variant: str) -> None:
    assert_fsdps(found, variant)


@pytest.mark.volume
@pytest.mark.parametrize("variant", MORE_EXACT)
def test_megatron_gives_fsdps_numbers_in_rarer_forms(more: Found, variant: str) -> None:
    """One group of key-value heads for two ranks, tied embeddings on two stages, stages of unequal length, rows split
    without packing.
    """
    assert_fsdps(more, variant)


def test_bfloat16(found: Found) -> None:
    assert_fsdps(found, "bfloat16", forwards=0.05, updates=0.3)


def test_the_base_model_is_the_adapter_switched_off(found: Found) -> None:
    padded, lora = found.of("padded"), found.of("lora")
    for name in FORWARDS:
        assert torch.equal(lora[name], padded[name])
    assert (lora["updated"] - padded["log_probs"]).abs().max() > 0.1
    assert torch.equal(lora["adapter_off"], padded["log_probs"])


def assert_resumes(found: Found, saved: str, resumed: str, tolerance: float = 0) -> None:
    went_on, again = found.of(saved), found.of(resumed)
    for before, after in (("updated", "log_probs"), ("updated_twice", "updated")):
        torch.testing.assert_close(again[after], went_on[before], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("saved", "resumed"), [("padded", "resumed"), ("lora", "lora_resumed")])
def test_a_resumed_run_makes_the_update_that_was_next(found: Found, saved: str, resumed: str) -> None:
    assert_resumes(found, saved, resumed)


@pytest.mark.parametrize("variant", ["padded", "tensor", "pipeline", "data", "lora"])
def test_the_evaluation_is_of_the_trained_policy(found: Found, variant: str) -> None:
    """The checkpoint that the evaluation finds, with the adapter in its weights where there is one."""
    checkpoint = resolve_checkpoint(str(found.folder / variant / "global_step_1"))
    numbers = found.of(variant)
    assert (numbers["updated"] - numbers["log_probs"]).abs().max() > 0.5
    torch.testing.assert_close(log_probs_in_transformers(checkpoint.folder), numbers["updated"], rtol=1e-4, atol=1e-4)


@pytest.mark.volume
def test_resumption_on_two_ranks_and_on_fewer(more: Found) -> None:
    """Data-parallel ranks may change between starts; tensor-parallel ones may not, and the error names no size."""
    assert_resumes(more, "tensor", "tensor_resumed")
    assert_resumes(more, "data", "fewer_data_ranks", tolerance=1e-5)
    assert "shape mismatch" in str(more.of("fewer_tensor_ranks")["error"])


@pytest.mark.volume
def test_an_adapter_divided_over_two_ranks(more: Found) -> None:
    """The same adapter, loaded on one rank and on two, gives the same numbers and the same updates."""
    one, two = more.of("lora_weights"), more.of("tensor_lora")
    assert_same(two, {name: one[name] for name in FORWARDS}, tolerance=1e-5)
    assert_same(two, {name: one[name] for name in (*UPDATES, "adapter_off")}, tolerance=1e-3)


@pytest.mark.volume
def test_the_learning_rate_after_a_resumption(more: Found) -> None:
    """verl saves Megatron's schedule and by default does not load it: the warm-up begins again. The preflight asks for
    the switch with which it goes on.
    """
    rates = [more.of(variant)["lr"].tolist() for variant in WARM_UPS]
    assert rates == [[0.002, 0.004], [0.004, 0.006], [0.002, 0.004]]


@pytest.mark.volume
@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("vocabulary", "259 is not divisible by 2"),
        ("layers", "num_layers=3 should be divisible by"),
        ("virtual_layers", "number of model chunks is the same"),
        ("virtual_alone", "pipeline-model-parallel size should be greater than 1"),
        ("virtual_tied", "Output layer not found"),
    ],
)
def test_what_the_preflight_reports_stops_megatron(more: Found, variant: str, said: str) -> None:
    assert any(
        said in str(torch.load(more.folder / f"{variant}.{rank}.pt").get("error"))
        for rank in (0, 1)
        if more.has(variant, rank)
    )


@pytest.mark.volume
def test_a_padded_vocabulary_takes_part_in_the_softmax(more: Found) -> None:
    """Why the preflight calls ``should_pad_vocab`` a problem: the padding has logits of 0, and nothing masks them."""
    off = (more.of("padded_vocabulary")["log_probs"] - more.fsdp("padded_vocabulary")["log_probs"]).abs().max()
    assert off > 1e-3

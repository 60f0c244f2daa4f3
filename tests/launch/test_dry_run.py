"""The dry run of every cell: the paper's models x methods x engines x rollouts, on one node and on four.

Each cell is `DRY_RUN=1 scripts/train.sh` from beginning to end, on made-up data files with the columns that data_prep
writes, and with no weights at hand. So that 96 of them take minutes, the launcher's python is one that has verl loaded
(warm_python.py); one cell runs with the real one too, and says the same. A GPU is taken to have 80 GiB.

Not exercised: that a training starts and fits (there is no GPU here); the memory figures are the preflight's estimates.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from tests.preflight.set_ups import math_row, write_rows
from tests.scripts.launchers import MODELS, launch
from tests.scripts.warm_python import WarmPython
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM

METHODS = ("grpo", "dr_grpo", "dapo", "ispo")
PLACES = tuple(product(("fsdp", "megatron"), ("vllm", "sglang"), ("1", "4")))
ROWS = {"dapo_math": 600, "aime24": 30, "aime25": 30, "amc23": 40, "math500": 500, "olympiadbench": 675}
ROLLOUT, MEGATRON = "actor_rollout_ref.rollout", "actor_rollout_ref.actor.megatron"


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    # a socket's path must be short
    with WarmPython(tmp_path_factory.mktemp("w")) as python:
        yield python


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data under data/."""
    folder = tmp_path_factory.mktemp("dry_run")
    (folder / "data").mkdir()
    for name, rows in ROWS.items():
        write_rows(folder / f"data/{name}.parquet", [math_row(name)] * rows)
    return folder


@dataclass(frozen=True)
class Report:
    """What a dry run said.

    Attributes:
        status: exit status.
        findings: of each subject, levels and texts.
        overrides: of the command that it prints, with the config's name first.
    """

    status: int
    findings: dict[str, list[tuple[str, str]]]
    overrides: list[str]

    def texts(self, subject: str, level: str = OK) -> list[str]:
        return [text for found, text in self.findings.get(subject, []) if found == level]

    def subjects(self, level: str) -> set[str]:
        return {subject for subject, found in self.findings.items() if any(level == at for at, _ in found)}


def dry_run(
    python: Path | str, folder: Path, model: str, method: str, place: tuple[str, str, str], *more: str, **variables: str
) -> Report:
    engine, rollout, nodes = place
    given = {"MODEL": model, "METHOD": method, "ENGINE": engine, "ROLLOUT": rollout, "NNODES": nodes, "DATA": "data"}
    run = launch("train.sh", *more, cwd=folder, PYTHON=str(python), DRY_RUN="1", **{**given, **variables})
    findings: dict[str, list[tuple[str, str]]] = {}
    for level, subject, text in re.findall(rf"^ +({OK}|{NOTE}|{PROBLEM})  (.+?): (.*)$", run.stdout, re.MULTILINE):
        findings.setdefault(subject, []).append((level, text))
    assert findings, run.stderr
    command = shlex.split(run.stdout.splitlines()[-1])
    assert command[:3] == ["python", "-m", "verl.trainer.main_ppo"]
    return Report(run.returncode, findings, command[3:])


def test_the_product_has_96_cells() -> None:
    assert len(MODELS) * len(METHODS) * len(PLACES) == 96


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_every_cell_composes_and_checks(model: str, method: str, folder: Path, warm: WarmPython) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = pool.map(lambda place: dry_run(warm.path, folder, model, method, place), PLACES)
        for place, report in zip(PLACES, reports, strict=True):
            assert report.subjects(PROBLEM) == set(), place
            assert report.status == 0, place
            check_what_was_checked(model, method, place, report)


def check_what_was_checked(model: str, method: str, place: tuple[str, str, str], report: Report) -> None:
    """That no check was left out, and that each looked at this cell."""
    engine, rollout, nodes = place
    gpus = 8 * int(nodes)
    name = "ispo_megatron_trainer" if engine == "megatron" else "ispo_trainer"
    wanted = {f"--config-name={name}", f"method={method}", f"base_model={model}", f"{ROLLOUT}.name={rollout}"}
    assert wanted | {f"trainer.nnodes={nodes}", "trainer.n_gpus_per_node=8"} <= set(report.overrides)
    positions, longest = ("10240", "9216") if model == "qwen2_5_7b" else ("6144", "5120")
    (context,) = report.texts("context")
    assert f"is {longest} tokens, of {positions}" in context
    ranks = gpus // 2 if engine == "megatron" else gpus
    assert report.texts("batch") == [f"512 prompts x 8 rollouts a step, 2 update(s) of 2048 rows on {ranks} ranks"]
    assert "frozen" in report.texts("actor_rollout_ref.ref")[0]
    assert [text.rsplit(", ")[-1] for text in report.texts("data.train_files")] == ["600 rows"]
    assert len(report.texts("data.val_files")) == 5
    assert report.texts("reward.custom_reward_function")
    assert report.texts("verl's own checks") == ["passed"]
    (parameters,) = report.texts("memory")
    assert parameters.startswith("1.54 B" if model == "qwen2_5_math_1_5b" else "7.62 B")
    for phase in ("update", "log-probs", "rollout"):
        assert report.findings[f"memory, {phase}"], phase
    for key in ("actor.ppo", "rollout.log_prob", "ref.log_prob"):
        assert report.texts(f"actor_rollout_ref.{key}_max_token_len_per_gpu")
    of_this_machine = {"devices", "vllm", "sglang", "flash-attn", "megatron-core", "trainer.default_local_dir"}
    of_this_machine |= {f"{ROLLOUT}.name", "actor_rollout_ref.actor.strategy"}
    notes = report.subjects(NOTE) - of_this_machine
    assert notes == {"actor_rollout_ref.model.path"}, "no weights at hand, and nothing else to note"


# what is given beside the model: variables and arguments, and the key that is blamed
TRAPS = {
    "context": ({}, ["data.max_response_length=5121"], "data.max_response_length"),
    "divisibility": ({"NNODES": "3"}, [], "actor_rollout_ref.actor.ppo_mini_batch_size"),
    "missing reference policy": ({}, ["~actor_rollout_ref.ref"], "actor_rollout_ref.ref"),
    "wrong scorer": ({}, ["reward.custom_reward_function.path=null"], "data.train_files"),
    "activations of a 7B model on one node": (
        {"ENGINE": "megatron"},
        [f"{MEGATRON}.override_transformer_config.recompute_granularity=null"],
        "memory, update",
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_known_trap_stops_the_launchers_dry_run_too(trap: str, folder: Path, warm: WarmPython) -> None:
    variables, arguments, key = TRAPS[trap]
    place = ("fsdp", "vllm", "1")
    report = dry_run(warm.path, folder, "qwen2_5_math_7b", "ispo", place, *arguments, **variables)
    assert report.status == 1
    assert key in report.subjects(PROBLEM)


def test_a_python_that_starts_anew_says_the_same(folder: Path, warm: WarmPython) -> None:
    cell = ("qwen2_5_7b", "dapo", PLACES[-1])
    cold, again = (dry_run(python, folder, *cell) for python in (sys.executable, warm.path))
    check_what_was_checked(*cell, cold)
    free_space = "trainer.default_local_dir"  # changes while the tests run
    assert cold.findings.pop(free_space)[0][0] == again.findings.pop(free_space)[0][0]
    assert cold == again

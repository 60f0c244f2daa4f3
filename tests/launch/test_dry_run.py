"""The dry run of every cell: the paper's models x methods x engines x rollouts, on one node and on four.

Each cell is ``verl-ispo train --dry-run`` from beginning to end, in this process, on made-up data files with the
columns that data_prep writes, and without weights. A sample with every pair of choices is run here, all 96 by
``scripts/test.sh all``; one cell goes through scripts/train.sh and its own interpreter, with the same output. A GPU
is taken to have 80 GiB.

Not exercised: that a training starts and fits (there is no GPU here); the memory figures are the preflight's estimates.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launch.cells import ALL_CELLS, COVERING_CELLS, Cell
from tests.preflight.set_ups import math_row, write_rows
from tests.scripts.launchers import launch
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM

ROWS = {"dapo_math": 600, "aime24": 30, "aime25": 30, "amc23": 40, "math500": 500, "olympiadbench": 675}
ROLLOUT, MEGATRON = "actor_rollout_ref.rollout", "actor_rollout_ref.actor.megatron"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data."""
    folder = tmp_path_factory.mktemp("dry_run")
    for name, number in ROWS.items():
        write_rows(folder / f"{name}.parquet", [math_row(name)] * number)
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


def read_report(status: int, out: str, err: str) -> Report:
    findings: dict[str, list[tuple[str, str]]] = {}
    for level, subject, text in re.findall(rf"^ +({OK}|{NOTE}|{PROBLEM})  (.+?): (.*)$", out, re.MULTILINE):
        findings.setdefault(subject, []).append((level, text))
    assert findings, err
    command = shlex.split(out.splitlines()[-1])
    assert command[:3] == ["python", "-m", "verl.trainer.main_ppo"]
    return Report(status, findings, command[3:])


def dry_run(command: Command, rows: Path, cell: Cell, *overrides: str) -> Report:
    options = zip(("--model", "--method", "--engine", "--rollout", "--nnodes"), cell, strict=True)
    given = [word for option in options for word in option]
    return read_report(*command("train", "--dry-run", *given, "--data", rows, *overrides))


def check_cell(command: Command, rows: Path, cell: Cell) -> None:
    report = dry_run(command, rows, cell)
    assert report.subjects(PROBLEM) == set(), cell
    assert report.status == 0, cell
    check_what_was_checked(cell, report)


def test_the_product_has_96_cells() -> None:
    assert len(ALL_CELLS) == 96


@pytest.mark.parametrize("cell", COVERING_CELLS)
def test_a_cell_composes_and_checks(cell: Cell, command: Command, rows: Path) -> None:
    check_cell(command, rows, cell)


@pytest.mark.volume
@pytest.mark.parametrize("cell", sorted(set(ALL_CELLS) - set(COVERING_CELLS)))
def test_every_other_cell_composes_and_checks(cell: Cell, command: Command, rows: Path) -> None:
    check_cell(command, rows, cell)


def check_what_was_checked(cell: Cell, report: Report) -> None:
    """That no check was left out, and that each looked at this cell."""
    model, method, engine, rollout, nodes = cell
    gpus = 8 * int(nodes)
    name = "ispo_megatron_trainer" if engine == "megatron" else "ispo_trainer"
    wanted = {f"--config-name={name}", f"method={method}", f"base_model={model}", f"{ROLLOUT}.name={rollout}"}
    assert wanted | {f"trainer.nnodes={nodes}", "trainer.n_gpus_per_node=8"} <= set(report.overrides)
    positions, longest = ("10240", "9216") if model == "qwen2_5_7b" else ("6144", "5120")
    (context,) = report.texts("context")
    assert f"is {longest} tokens, of {positions}" in context
    ranks = gpus // 2 if engine == "megatron" else gpus
    assert report.texts("batch") == [f"512 prompts x 8 rollouts per step, 2 update(s) of 2048 rows on {ranks} ranks"]
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
    assert notes == {"actor_rollout_ref.model.path"}, "no weights here, and nothing else to note"


# nodes, engine and arguments, and the key that is blamed
TRAPS = {
    "context": ("1", "fsdp", ["data.max_response_length=5121"], "data.max_response_length"),
    "divisibility": ("3", "fsdp", [], "actor_rollout_ref.actor.ppo_mini_batch_size"),
    "missing reference policy": ("1", "fsdp", ["~actor_rollout_ref.ref"], "actor_rollout_ref.ref"),
    "wrong scorer": ("1", "fsdp", ["reward.custom_reward_function.path=null"], "data.train_files"),
    "activations of a 7B model on one node": (
        *("1", "megatron"),
        [f"{MEGATRON}.override_transformer_config.recompute_granularity=null"],
        "memory, update",
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_known_trap_stops_the_launchers_dry_run_too(trap: str, command: Command, rows: Path) -> None:
    nodes, engine, arguments, key = TRAPS[trap]
    report = dry_run(command, rows, ("qwen2_5_math_7b", "ispo", engine, "vllm", nodes), *arguments)
    assert report.status == 1
    assert key in report.subjects(PROBLEM)


def test_the_script_in_a_process_of_its_own_says_the_same(command: Command, rows: Path, tmp_path: Path) -> None:
    cell: Cell = ("qwen2_5_7b", "dapo", "megatron", "sglang", "4")
    names = ("MODEL", "METHOD", "ENGINE", "ROLLOUT", "NNODES")
    variables = {**dict(zip(names, cell, strict=True)), "DATA": str(rows), "DRY_RUN": "1", "VERL_PLATFORM": "cpu"}
    run = launch("train.sh", cwd=tmp_path, PYTHON=sys.executable, **variables)
    cold, again = read_report(run.returncode, run.stdout, run.stderr), dry_run(command, rows, cell)
    check_what_was_checked(cell, cold)
    free_space = "trainer.default_local_dir"  # changes while the tests run
    assert cold.findings.pop(free_space)[0][0] == again.findings.pop(free_space)[0][0]
    assert cold == again

"""Commands of the pages: those that a CPU runs in seconds are run, all others are checked against what they call.

Run in this process: ``verl-ispo methods``, the Python blocks, blocks marked with ``run with``, the preflight of every
training command, on made data, and the help of every script. Everything else is parsed by the program's own parser, or
its variables are looked up in the script's help. Not exercised: what needs a GPU, a network or a finished run.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.docs.commands import Command, bash_help, commands_of, module_parser, run_module, script_parser
from tests.docs.pages import PAGES, README, ROOT, CodeBlock, code_blocks, languages
from tests.preflight.set_ups import all_findings, composed, math_row, problems, write_model, write_rows
from verl_ispo.cli import build_parser, main
from verl_ispo.preflight.composition import compose_config, preset_overrides

BASH_BLOCKS = [block for page in PAGES for block in code_blocks(page, "bash")]
PYTHON_BLOCKS = [block for page in PAGES for block in code_blocks(page, "python")]
TRAINING = ("-m", "verl.trainer.main_ppo")


COMMANDS = sorted({call for block in BASH_BLOCKS for call in commands_of(block.text, home="/home/reader")}, key=str)
TRAININGS = [command for command in COMMANDS if command.arguments[:2] == TRAINING]


def test_pages_have_blocks_of_known_languages_only() -> None:
    # test_names compares the YAML block of adding_a_method with the preset
    with_yaml = {"adding_a_method.md"}
    for page in PAGES:
        assert languages(page) <= {"bash", "python", "text", *(["yaml"] if page.name in with_yaml else [])}
    assert BASH_BLOCKS
    assert PYTHON_BLOCKS
    assert TRAININGS


def short(command: Command) -> str:
    return str(command)[:100]


@pytest.mark.parametrize("command", COMMANDS, ids=short)
def test_what_a_command_calls_takes_its_arguments(command: Command) -> None:
    arguments = list(command.arguments)
    if command.program == "verl-ispo":
        build_parser().parse_args(arguments)
    elif command.program == "pip":
        assert arguments[0] == "install"
        extras = re.findall(r"^    \"(\w+)\": \[", (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
        assert all(re.fullmatch(rf"\.(\[({'|'.join(extras)})\])?", target) for target in arguments[1:])
    elif command.program == "python" and tuple(arguments[:2]) != TRAINING:
        parser = module_parser(arguments[1]) if arguments[0] == "-m" else script_parser(arguments[0])
        parser.parse_args(arguments[2:] if arguments[0] == "-m" else arguments[1:])
    elif command.program in ("bash", "sbatch"):
        script = next(argument for argument in arguments if not argument.startswith("-"))
        known = known_variables(script)
        assert {name for name, _ in command.variables} <= known, f"not in the help of {script}"
        if script == "scripts/test.sh":
            text = (ROOT / script).read_text(encoding="utf-8")
            for argument in arguments[1:]:
                assert argument == "-x" or (ROOT / argument).exists() or f"test.sh {argument} " in text, argument
    else:
        assert command.program in ("python", "source")
        # a training: see below; a file that is sourced has to be there
        assert command.program == "python" or (ROOT / arguments[0]).exists()


def known_variables(script: str) -> set[str]:
    """Variables in the help of a script, and of the scripts whose variables it says it passes on."""
    if script == "scripts/test.sh":  # it takes only arguments, and no --help
        return set()
    text = bash_help(script)
    # a script that makes an environment takes no variables on behalf of another, and would make it
    named = re.findall(r"scripts/[\w/]+\.sh", text)
    passed_on = [name for name in named if name != script and not name.startswith("scripts/setup_")]
    return set(re.findall(r"\b([A-Z][A-Z0-9_]+)=", text + "".join(map(bash_help, passed_on))))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages' training commands take: prepared data, the quickstart's model. HOME and cwd."""
    rows = [math_row()] * 18_000  # as many as the longest of them takes in its epochs
    names = ("dapo_math", "aime24", "aime25", "amc23", "math500", "olympiadbench")
    quickstart = "runs/quickstart/data-levels1-6"
    for file in (
        "train",
        "test",
        *(f"data/math/{name}" for name in names),
        f"{quickstart}/train",
        f"{quickstart}/heldout",
    ):
        path = tmp_path / f"{file}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, rows)
    write_model(tmp_path / "runs/quickstart/base")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("command", TRAININGS, ids=short)
def test_the_preflight_finds_no_problem_in_a_training(command: Command, reader: Path) -> None:
    option, *overrides = [argument.replace("/home/reader", str(reader)) for argument in command.arguments[2:]]
    name = option.removeprefix("--config-name=")
    config = compose_config(name, overrides)
    preset = composed(name, *preset_overrides(overrides))
    assert problems(all_findings(config, preset)) == {}


def test_the_readmes_training_commands_start_the_papers_trainings(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [call for block in code_blocks(README, "bash") for call in commands_of(block.text, str(reader))]
    trainings = [c for c in calls if c.arguments[:1] == ("train",) and "--dry-run" not in c.arguments]
    estimators = []
    for training in trainings:
        assert main([*training.arguments, "--print-only"]) == 0
        words = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
        assert words[1:3] == list(TRAINING)
        config = compose_config(words[3].removeprefix("--config-name="), words[4:])
        estimators.append(config.algorithm.adv_estimator)
        assert config.actor_rollout_ref.rollout.n == 8
        assert config.data.train_batch_size == 512
        assert config.trainer.n_gpus_per_node == 8
        assert config.data.train_files == [str(reader / "data/math/dapo_math.parquet")]
        assert len(config.data.val_files) == 5
    assert estimators == ["grpo", "ispo", "ispo"]


def test_the_preflight_block_finds_no_problem(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dry_runs = [command for command in COMMANDS if command.arguments[:2] == ("doctor", "--dry-run")]
    assert dry_runs
    for command in dry_runs:
        assert main(command.arguments) == 0
        assert "Nothing stands in the way of a training" in capsys.readouterr().out


def test_methods_commands_print_what_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    listings = [command for command in COMMANDS if command.arguments[:1] == ("methods",)]
    assert listings
    for command in listings:
        assert main(command.arguments) == 0
        assert "grpo" in capsys.readouterr().out or "grpo" not in command.arguments


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_python_blocks_run_as_they_stand(block: CodeBlock) -> None:
    exec(compile(block.text, str(block), "exec"), {"__name__": "block"})


@pytest.mark.parametrize("block", [block for block in BASH_BLOCKS if block.needs], ids=str)
def test_marked_blocks_run_from_end_to_end(block: CodeBlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = {"math500.jsonl": 500, "deepmath.jsonl": 20}
    for name in block.needs:
        rows = [{"question": f"What is {name} plus {n} apples?", "answer": str(n)} for n in range(makers[name])]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command in commands_of(block.text, str(tmp_path)):
        assert (command.program, command.arguments[0]) == ("python", "-m")
        assert run_module(command.arguments[1], command.arguments[2:]) == 0
    assert (tmp_path / "data/math/deepmath.parquet").exists()


@pytest.mark.parametrize(
    "script", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "scripts").rglob("*.py")), ids=str
)
def test_python_scripts_print_help(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "argparse" not in (ROOT / script).read_text(encoding="utf-8"):
        assert not any(script in " ".join(command.arguments) for command in COMMANDS)
        return
    script_parser(script).print_help()
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_bash_scripts_named_on_a_page_print_help(page: Path) -> None:
    named = set(re.findall(r"\b(?:scripts|examples)/[\w/]+\.(?:sh|sbatch)\b", page.read_text(encoding="utf-8")))
    for script in sorted(named - {"scripts/setup_cpu.sh", "scripts/setup_vllm_cpu.sh", "scripts/test.sh"}):
        assert "=" in bash_help(script), script

"""Overrides that Hydra cannot read are named with the character and with what to write; what is proposed is read.

Hydra's own parser is the reference.
"""

from __future__ import annotations

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo import cli, doctor
from verl_ispo.preflight.composition import compose_config
from verl_ispo.preflight.override_grammar import OverrideError, check_overrides


def said_of(override: str) -> str:
    with pytest.raises(OverrideError) as error:
        check_overrides(["method=grpo", override])
    return str(error.value)


def read(override: str) -> object:
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize(
    ("override", "proposed"),
    [
        ("trainer.default_local_dir=~/runs", '"trainer.default_local_dir=$HOME/runs"'),
        ("data.train_files=[~/a.parquet,/b.parquet]", '"data.train_files=[$HOME/a.parquet,/b.parquet]"'),
        ("data.train_files=[/a.parquet,~/b.parquet]", '"data.train_files=[/a.parquet,$HOME/b.parquet]"'),
        ("a=~", '"a=$HOME"'),
    ],
)
def test_a_tilde_is_home_that_no_shell_has_replaced(override: str, proposed: str) -> None:
    said = said_of(override)
    assert "override 2 of 2" in said
    assert f"character {override.index('~') + 1} ('~')" in said
    assert said.endswith(f"write $HOME: {proposed}")


@pytest.mark.parametrize(
    ("override", "at", "value"),
    [
        ("trainer.experiment_name=lr=1e-6", "=", "lr=1e-6"),
        ("trainer.experiment_name=run (2)", "(", "run (2)"),
        ("trainer.experiment_name=été", "é", "été"),
        ("trainer.experiment_name=it's", "'", "it's"),
        ("trainer.experiment_name=a#b", "#", "a#b"),
        ("model.template=\\boxed{}", "{", "\\boxed{}"),
        ("data.train_files=[/x (1)/a.parquet,/b=c.parquet]", "(", ["/x (1)/a.parquet", "/b=c.parquet"]),
    ],
)
def test_a_text_with_signs_of_the_grammar_is_quoted(override: str, at: str, value: object) -> None:
    said = said_of(override)
    assert f"character {override.index(at, override.index('=') + 1) + 1} ({at!r})" in said
    (proposed,) = shlex.split(said.rpartition("for the shell: ")[2])
    assert read(proposed) == value


@settings(max_examples=examples(60))
@given(value=st.text(st.sampled_from("ab1/.-_ ='\"(){}#é\\$!%*&;<>^:,"), min_size=1, max_size=12))
def test_no_value_is_refused_without_a_proposal_that_hydra_reads(value: str) -> None:
    """Whatever a user puts into one word: Hydra reads it, or the message has an override that means that text."""
    override = f"trainer.experiment_name={value}"
    try:
        parsed = OverridesParser.create().parse_override(override)
        if not parsed.is_sweep_override():
            check_overrides([override])
            return
    except HydraException:
        pass
    said = said_of(override)
    if "is not closed" in said:
        return
    proposed = shlex.split(re.split(r"for the shell: |with commas |quote it: ", said)[-1])
    check_overrides(proposed)
    assert read(proposed[0]) == value


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.train_files=a.parquet,b.parquet", ("one run per value", "data.train_files=[a.parquet,b.parquet]")),
        ("trainer.save_freq", ("its end", "KEY=VALUE")),
        ("trainer.save_freq =5", ("no spaces around =: trainer.save_freq=5",)),
        ("=", ("it has no key",)),
        ("--trainer.save_freq=5", ("no dashes in front: trainer.save_freq=5",)),
        ("data.train_files[0]=a", ("is no key",)),
        ("data.train_files=[a.parquet,", ("[ is not closed", "quote the whole override")),
        ("trainer.project_name='x", ("' is not closed",)),
        ("a=1 b=2", ("a word of its own",)),
    ],
)
def test_other_slips(override: str, named: tuple[str, ...]) -> None:
    said = said_of(override)
    for part in named:
        assert part in said


def test_the_doctor_and_the_launcher_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OverrideError, match="write \\$HOME"):
        compose_config("ispo_trainer", ["trainer.default_local_dir=~/x"])
    assert doctor.run("ispo_trainer", ["trainer.default_local_dir=~/x"], dry_run=True) == 1
    assert "write $HOME" in capsys.readouterr().out
    given_ = ["train", "--model", "qwen2_5_7b", "--train-files", "a", "--val-files", "a", "--print-only"]
    assert cli.main([*given_, "--", "trainer.default_local_dir=~/x"]) == 2
    assert "write $HOME" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["data.x=1", "--no-ray", "backend=cpu"],
        ["--no-ray", "data.x=1", "backend=cpu"],
        ["data.x=1", "backend=cpu", "--no-ray"],
        ["--no-ray", "--", "data.x=1", "backend=cpu"],
    ],
)
@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        ("doctor", "--no-ray", "overrides"),
        ("train", "--print-only", "arguments"),
        ("reproduce-table", "--print-only", "arguments"),
    ],
)
def test_overrides_and_options_come_in_any_order(command: str, option: str, name: str, words: list[str]) -> None:
    """argparse alone takes the first run of overrides and calls the others unrecognized."""
    options = vars(cli.parsed([command, *(option if word == "--no-ray" else word for word in words)]))
    assert options[name] == ["data.x=1", "backend=cpu"]
    assert options[option[2:].replace("-", "_")] is True


def test_options_with_values_stand_between_overrides() -> None:
    options = cli.parsed(["doctor", "a=1", "--gpu-memory-gib", "40", "b=2", "--config-name", "other", "~c", "+d=4"])
    assert (options.overrides, options.gpu_memory_gib, options.config_name) == (
        ["a=1", "b=2", "~c", "+d=4"],
        40,
        "other",
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["doctor", "a=1", "--nope", "b=2"], "unrecognized arguments: --nope"),
        (["doctor", "--data.train_batch_size=4"], "no dashes: data.train_batch_size=4"),
        (["methods", "--nope"], "unrecognized arguments: --nope"),
    ],
)
def test_an_unknown_option_is_still_refused(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parsed(words)
    assert named in capsys.readouterr().err

"""A probe from start to end on a CPU, with a random model: what is written, and what a second start does not repeat.

The random model's text is noise, so a reward function of this file decides what is correct; the numbers of the verdict
are checked on made batches (`test_regimes`), here only that the parts fit.

Not exercised: vLLM, a GPU; how the page looks (see the picture in docs/probe.md).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.evaluation.conftest import arithmetic_row
from tests.probe.hostile_probe import hostile_result
from tests.report.test_report import ALLOWED_ELEMENTS, Elements
from verl_ispo.cli import main, parsed
from verl_ispo.evaluation.cpu_sampler import CPUSampler
from verl_ispo.evaluation.grader import Grade
from verl_ispo.evaluation.questions import Question, read_distinct_questions
from verl_ispo.probe import run as probe_run
from verl_ispo.probe.preset_advantages import BESIDE, preset_rule, same_rules, signal_presets
from verl_ispo.probe.probe_options import ProbeOptions, ispo_overrides
from verl_ispo.probe.probe_page import render
from verl_ispo.probe.probe_rollouts import Rollout, choose_questions
from verl_ispo.probe.scored_rollouts import ablated_rows, find_answers, rollout_rows
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.user_error import UserError

FILES = {
    *("manifest.json", "samples.jsonl", "scores.jsonl", "rollouts.jsonl", "probe.json", "probe.html", ".lock"),
}
GRADER = """
def compute_score(data_source, solution_str, ground_truth, extra_info):
    return {"score": float(len(solution_str) % 2 and bool(solution_str)), "pred": solution_str[:3]}
"""


@pytest.fixture
def options(random_model: Path, write_benchmark: Callable[..., Path], tmp_path: Path) -> ProbeOptions:
    (tmp_path / "grader.py").write_text(GRADER)
    return ProbeOptions(
        model=str(random_model),
        data=write_benchmark([arithmetic_row(index) for index in range(6)]),
        out=tmp_path / "out",
        prompts=4,
        rollouts=3,
        max_new_tokens=6,
        context_tokens=None,
        temperature=1.0,
        seed=0,
        sampler="cpu",
        tensor_parallel_size=1,
        device="cpu",
        dtype="auto",
        reward_function=str(tmp_path / "grader.py"),
        reference=None,
        methods=(),
        overrides=(),
    )


def never(*_: object, **__: object) -> None:
    raise AssertionError("done twice")


def test_a_probe_is_written_and_a_second_start_repeats_nothing(
    options: ProbeOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes wrong: the second start samples other rollouts, or scores for minutes what it has."""
    assert probe_run.run(options) == 0
    assert {path.name for path in options.out.iterdir()} == FILES
    said = capsys.readouterr().out
    summary = json.loads((options.out / "probe.json").read_text())
    assert summary["verdict"]["words"]["headline"].split()[0] in said
    assert summary["measures"]["rollouts"] == 12
    records = [json.loads(line) for line in (options.out / "rollouts.jsonl").read_text().splitlines()]
    assert len(records) == 12
    assert {record["question_id"] for record in records} <= {f"sums-{index}" for index in range(6)}
    first = (options.out / "rollouts.jsonl").read_bytes()
    monkeypatch.setattr(CPUSampler, "__call__", never)
    monkeypatch.setattr(probe_run, "load_model", never)
    assert probe_run.run(options) == 0
    assert (options.out / "rollouts.jsonl").read_bytes() == first
    # other presets and settings are judged on the same samples
    again = dataclasses.replace(options, methods=("ispo_off",), overrides=("algorithm.ispo.ifd_weight=0.1",))
    assert probe_run.run(again) == 0
    presets = json.loads((options.out / "probe.json").read_text())["verdict"]["hazards"]
    assert list(presets) == ["ispo", "ispo_off"]


def test_a_folder_of_other_sampling_is_refused(options: ProbeOptions, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe_run.run(options) == 0
    assert probe_run.run(dataclasses.replace(options, temperature=0.5)) == 2
    assert "options.temperature: recorded 1.0, asked 0.5" in capsys.readouterr().err
    other = options.out.parent / "other"
    other.mkdir()
    (other / "mine.txt").write_text("")
    assert probe_run.run(dataclasses.replace(options, out=other)) == 2
    assert "mine.txt" in capsys.readouterr().err


def test_a_reference_makes_drift(options: ProbeOptions, random_model: Path, tmp_path: Path) -> None:
    """The reference is another model: some tokens have drifted from it, and none have from the model itself."""
    from verl_ispo.tiny_task.base_model import build_model
    from verl_ispo.tiny_task.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    build_model(tokenizer, seed=1).save_pretrained(tmp_path / "reference")
    tokenizer.save_pretrained(tmp_path / "reference")
    assert probe_run.probe(options).measures.drifted == 0
    with_reference = probe_run.probe(dataclasses.replace(options, reference=str(tmp_path / "reference")))
    assert with_reference.measures.drifted > 0
    assert "drifted from the reference" in "".join(with_reference.words.facts)


def test_the_command_line_takes_overrides_anywhere() -> None:
    given = parsed(["probe", "model", "a.parquet", "--out", "o", "--methods", "ispo", "algorithm.ispo.ifd_weight=0"])
    assert [*given.methods, *given.overrides] == ["ispo", "algorithm.ispo.ifd_weight=0"]
    given = parsed(["probe", "model", "a.parquet", "algorithm.ispo.ifd_weight=0", "--out", "o"])
    assert given.overrides == ["algorithm.ispo.ifd_weight=0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rollouts", "1"], "--rollouts 1: give 2 or more"),
        (["--temperature", "0"], "--temperature 0.0: give a number above 0"),
        (["algorithm.gamma=1"], "algorithm.gamma=1: the probe takes overrides of the form algorithm.ispo.KEY=VALUE"),
        (["algorithm.ispo.ifd_wait=1"], "did you mean 'ifd_weight'"),
        (["--methods", "gtpo"], "--methods gtpo: the probe compares one advantage per rollout"),
        (["--methods", "ispo_gard"], "did you mean"),
        ([], "missing.parquet: no such file"),
    ],
)
def test_a_fault_is_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", "model", str(tmp_path / "missing.parquet"), "--out", str(tmp_path / "out"), *arguments]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_overrides_win_over_presets() -> None:
    settings = ispo_overrides(("algorithm.ispo.all_wrong_groups=paper", "+algorithm.ispo.max_abs_ifd=2"))
    assert settings == {"all_wrong_groups": "paper", "max_abs_ifd": 2}
    assert preset_rule("ispo_off", settings).config.all_wrong_groups == "paper"
    assert preset_rule("ispo_dr_grpo", {}).normalize_by_std is False


def test_every_preset_of_the_signals_is_compared() -> None:
    names = [name for some in same_rules([*signal_presets(), *BESIDE], {}).values() for name in some]
    assert names[0] == "ispo"
    assert {"ispo_guarded", "ispo_off", "ispo_no_std", "grpo", "sign"} <= set(names)
    with pytest.raises(UserError, match="rloo"):
        preset_rule("rloo", {})
    # W-REINFORCE's estimator with other weights
    with pytest.raises(UserError, match=r"--methods psr: .* the estimator w_reinforce is none of"):
        preset_rule("psr", {})


def test_a_training_file_may_repeat_its_problems(write_benchmark: Callable[..., Path]) -> None:
    """What goes wrong: a published copy repeats each problem a hundred times, and the prompts drawn are few."""
    path = write_benchmark([arithmetic_row(index % 3, question=f"copy {index}") for index in range(9)])
    questions = read_distinct_questions(path)
    assert [(one.question_id, one.text) for one in questions] == [(f"sums-{at}", f"copy {at}") for at in range(3)]


def test_prompts_are_chosen_by_seed_and_not_by_count() -> None:
    questions = [Question("b", str(at), ({"role": "user", "content": "?"},), "1", {}) for at in range(40)]
    assert choose_questions(questions, 40, 0) == questions
    assert choose_questions(questions, 8, 0) == choose_questions(questions, 8, 0)
    assert choose_questions(questions, 8, 0) != choose_questions(questions, 8, 1)


def test_hostile_text_is_shown_and_does_nothing() -> None:
    """What goes wrong: text that a model wrote, a problem, or a model's name becomes an element of the page."""
    html = render(*hostile_result())
    page = Elements(html)
    assert set(page.elements) <= ALLOWED_ELEMENTS
    assert page.elements["style"] == 1
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert len(html) < 10**6


def test_what_is_scored_is_what_was_sampled() -> None:
    """The tail of a rollout is its own tokens; that without the trace is lead-in and answer, and nothing where there is
    no answer."""
    characters = sorted(set("ab \\boxed{7}!"))
    texts = TokenTexts(lambda token: characters[token])
    question = Question("b", "1", ({"role": "user", "content": "?"},), "7", {})

    def rollout(text: str) -> Rollout:
        ids = tuple(characters.index(character) for character in text)
        return Rollout(question, 0, (1, 2), ids, text, False, Grade(0.0, False, "wrong", ""))

    rollouts = [rollout("ab \\boxed{7}!"), rollout("ab")]
    answers = find_answers(rollouts, texts, preset_rule("ispo", {}).config, grades_lists=True)
    assert [row.tail for row in rollout_rows(rollouts)] == [one.response_ids for one in rollouts]
    ablated = ablated_rows(rollouts, answers)
    assert "".join(characters[token] for token in ablated[0].tail) == "\\boxed{7"
    assert ablated[0].head == (1, 2)
    assert ablated[1].tail == ()


def test_grpo_of_the_probe_is_verls() -> None:
    """The probe computes GRPO without verl; the numbers are those of verl's own function."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    from tests.probe.made_batches import batch_of, groups_of, prior
    from verl_ispo.probe.preset_advantages import PresetBatch

    batch = batch_of(groups_of(6, lambda number: number, prior))
    for name, by_std in (("grpo", True), ("dr_grpo", False), ("ispo", True), ("ispo_no_std", False)):
        one = PresetBatch(preset_rule(name, {}), batch)
        reward = one.reward()
        expected, _ = compute_grpo_outcome_advantage(
            token_level_rewards=one.training_reward(reward).unsqueeze(-1),
            response_mask=torch.ones(len(batch.correct), 1),
            index=batch.groups.ids.numpy(),
            norm_adv_by_std_in_grpo=by_std,
        )
        assert torch.allclose(one.advantage(reward), expected.squeeze(-1), atol=1e-5)

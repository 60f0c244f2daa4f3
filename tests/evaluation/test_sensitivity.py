"""Several settings of one model: which evaluations they make, their table, and what is said of the best of them.

The random model writes noise, so a grader that looks at the text's length makes scores that differ between settings.
The choice on one half of the problems is checked on settings of chance alone, where the best of the whole set must lie
above it, and on one that is better everywhere, where it must not.

Not exercised: several settings through vLLM, whose engine the settings share as they do the CPU's.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.conftest import ResultWriter, arithmetic_row
from verl_ispo import cli
from verl_ispo.evaluation import local_source
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.manifest import read_manifest
from verl_ispo.evaluation.results import load_result
from verl_ispo.evaluation.run import evaluate
from verl_ispo.evaluation.sensitivity import chosen_on_other_half, load_sensitivity, sensitivity_parts
from verl_ispo.evaluation.settings_grid import evaluate_settings, plan_settings, read_settings
from verl_ispo.user_error import UserError


def write_settings(tmp_path: Path, write_result: ResultWriter, sampled: dict[str, list[str]], **noted: Any) -> Path:
    """A folder of settings by the grades of the problems' samples; settings by the names of their folders."""
    root = tmp_path / "settings"
    root.mkdir()
    kinds = {name: None if name == "as_given" else name.rpartition("-")[0] for name in sampled}
    for name, marks in sampled.items():
        write_result(name, {"sums": "0" * len(marks)}, {"sums": marks}, method="Base").rename(root / name)
    (root / "settings.json").write_text(json.dumps({"template": "plain", "settings": {**kinds, **noted}}))
    return root


def rows_of(*folders: Path) -> tuple[list[list[str]], list[list[str]]]:
    settings, spread = sensitivity_parts([load_sensitivity(folder) for folder in folders])
    return [list(row) for row in settings.rows], [list(row) for row in spread.rows]


# --- evaluating


def test_one_value_changes_at_a_time_and_what_is_given_already_is_left_out(options: EvaluationOptions):
    variations = {"temperature": (0.6, 1.0, 1.0), "top_p": (0.9,), "max_new_tokens": (3, 6), "template": ("dapo",)}
    settings = plan_settings(options, variations)
    assert [(one.folder, one.varied) for one in settings] == [
        ("as_given", None),
        ("template-dapo", "template"),
        ("temperature-1", "temperature"),
        ("top_p-0.9", "top_p"),
        ("max_new_tokens-3", "max_new_tokens"),
    ]
    for one in settings[1:]:
        changed = {"out", one.varied}
        for field in dataclasses.fields(options):
            same = getattr(one.options, field.name) == getattr(options, field.name)
            assert same != (field.name in changed), field.name


def test_a_template_that_the_files_have_is_not_another_setting(
    options: EvaluationOptions, capsys: pytest.CaptureFixture[str]
):
    assert [one.folder for one in plan_settings(options, {"template": ("plain",)})] == ["as_given"]
    assert "--vary-template plain: the prompts as given are these" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variations", "said"),
    [
        ({"temperature": (0.0,)}, "--temperature 0.0: give a number above 0"),
        ({"top_p": (1.5,)}, "--top-p 1.5"),
        ({"template": ("nope",)}, "--template nope: neither a Jinja file nor one of qwen_math, dapo, plain"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_is_sampled(
    options: EvaluationOptions, variations: dict[str, tuple[Any, ...]], said: str
):
    with pytest.raises(UserError, match=said):
        evaluate_settings(options, variations)
    assert not options.out.exists()


def test_each_setting_is_an_evaluation_like_any_other_and_the_model_is_loaded_once(
    options: EvaluationOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    loads: list[str] = []
    load = local_source.load_sampler
    monkeypatch.setattr(local_source, "load_sampler", lambda *given: (loads.append("load"), load(*given))[1])
    variations = {"temperature": (1.0,), "template": ("dapo",)}
    options = dataclasses.replace(options, max_new_tokens=4, context_tokens=2000)
    evaluate_settings(options, variations)
    assert loads == ["load"]
    assert read_settings(options.out) == {
        "template": "plain",
        "settings": {"as_given": None, "template-dapo": "template", "temperature-1": "temperature"},
    }
    alone = dataclasses.replace(options, temperature=1.0, out=tmp_path / "alone")
    evaluate(alone)
    assert (options.out / "temperature-1" / "samples.jsonl").read_bytes() == (alone.out / "samples.jsonl").read_bytes()
    manifest = read_manifest(options.out / "template-dapo")
    assert manifest["options"]["template"] == "dapo"
    assert manifest["labels"]["method"] == "out"
    # again, with one more: nothing is sampled twice
    capsys.readouterr()
    loads.clear()
    evaluate_settings(options, {"top_p": (0.5,)})
    assert loads == ["load"]
    assert list(read_settings(options.out)["settings"])[-1] == "top_p-0.5"
    assert len(load_sensitivity(options.out).settings) == 4


def test_other_options_than_before_are_refused_and_the_note_stays(options: EvaluationOptions):
    evaluate_settings(options, {"temperature": (1.0,)})
    noted = read_settings(options.out)
    with pytest.raises(UserError, match=r"options\.n: recorded 2, asked 3"):
        evaluate_settings(dataclasses.replace(options, n=3), {"top_p": (0.5,)})
    assert read_settings(options.out) == noted


def test_a_folder_with_a_single_evaluation_takes_no_settings(options: EvaluationOptions):
    evaluate(options)
    with pytest.raises(UserError, match="holds a single evaluation; give another folder"):
        evaluate_settings(options, {"top_p": (0.5,)})


def test_a_template_makes_other_prompts_and_their_form_of_answer(options: EvaluationOptions):
    evaluate(dataclasses.replace(options, template="qwen_math", context_tokens=2000))
    prepared = dataclasses.replace(options, out=options.out.with_name("prepared"))
    evaluate(prepared)
    templated, plain = (load_result(folder).benchmarks["sums"].problems for folder in (options.out, prepared.out))
    assert [one.question_id for one in templated] == [one.question_id for one in plain]
    assert all(one.prompt_sha256 != other.prompt_sha256 for one, other in zip(templated, plain, strict=True))


def test_problems_without_a_bare_question_take_no_template(
    options: EvaluationOptions, write_benchmark: Callable[..., Path]
):
    row = arithmetic_row(1)
    row["extra_info"]["question"] = ""
    with pytest.raises(UserError, match=r"sums sums-1: no extra_info\.question"):
        evaluate(dataclasses.replace(options, benchmarks=(write_benchmark([row]),), template="dapo"))


# --- the table


def test_the_best_is_marked_beside_the_one_as_given(tmp_path: Path, write_result: ResultWriter):
    sampled = {
        "as_given": ["1000", "0000", "1100"],  # 3 of 12
        "template-dapo": ["1111", "1100", "1100"],  # 8
        "template-qwen_math": ["0000", "0000", "1000"],  # 1
        "temperature-1": ["1000", "0000", "0000"],  # 1
    }
    settings, spread = rows_of(write_settings(tmp_path, write_result, sampled))
    assert [(row[3], row[4].split()[0], row[-1]) for row in settings] == [
        ("as given: template plain, temperature 0.6, top-p 1, at most 64 tokens", "25.0", "as given; best temperature"),
        ("template dapo", "66.7", "best template"),
        ("template qwen_math", "8.3", ""),
        ("temperature 1", "8.3", ""),
    ]
    assert settings[0][5] == "-"
    assert settings[1][5].startswith("+41.7 [")
    template, temperature = spread
    assert template[3:7] == ["template", "3", "25.0", "template dapo: 66.7"]
    assert template[7].startswith("+41.7 [")
    assert template[9] == "8.3 to 66.7: 58.3"
    assert temperature[6] == "as given: 25.0"
    assert temperature[7] == "-"


def test_a_setting_that_is_not_finished_is_neither_best_nor_silent(tmp_path: Path, write_result: ResultWriter):
    sampled = {"as_given": ["10", "00"], "top_p-0.9": ["11", "10"]}
    folder = write_settings(tmp_path, write_result, sampled, **{"top_p-0.5": "top_p"})
    (folder / "top_p-0.9" / "samples.jsonl").unlink()
    settings, spread = rows_of(folder)
    assert [(row[3], row[4]) for row in settings[1:]] == [("top-p 0.5", "not run"), ("top-p 0.9", "unfinished")]
    assert spread == []  # nothing to compare with


def test_with_several_benchmarks_the_mean_decides(tmp_path: Path, write_result: ResultWriter):
    root = write_settings(tmp_path, write_result, {})
    for name, first, second in (("as_given", "11", "00"), ("temperature-1", "10", "11")):
        sampled = {"a": [first, first], "b": [second, second]}
        write_result(name, {"a": "00", "b": "00"}, sampled).rename(root / name)
    note = {"template": None, "settings": {"as_given": None, "temperature-1": "temperature", "top_p-1": "top_p"}}
    (root / "settings.json").write_text(json.dumps(note))
    settings, [spread] = rows_of(root)
    assert [row[6].split()[0] for row in settings] == ["50.0", "75.0", "not"]
    assert spread[6] == "temperature 1: 75.0"


def test_the_table_says_that_the_best_is_optimistic(tmp_path: Path, write_result: ResultWriter):
    folder = write_settings(tmp_path, write_result, {"as_given": ["10", "01"], "temperature-1": ["11", "10"]})
    out = tmp_path / "out"
    assert cli.main(["table", "--sensitivity", str(folder), "--out", str(out)]) == 0
    text = (out / "table.md").read_text()
    assert "so its score is too high by what chance added" in text
    assert "## Runs" not in text
    assert "Sensitivity to the setting" in (out / "table.tex").read_text()
    assert sorted(file.name for file in out.iterdir()) == [
        *("sensitivity.csv", "sensitivity_spread.csv", "table.md", "table.tex")
    ]
    rows = list(csv.DictReader((out / "sensitivity.csv").read_text().splitlines()))
    assert [(row["varied"], row["accuracy"], row["marks"]) for row in rows] == [
        ("as_given", "0.5", "as given"),
        ("temperature", "0.75", "best temperature"),
    ]


def test_it_can_stand_beside_the_scores(tmp_path: Path, write_result: ResultWriter):
    folder = write_settings(tmp_path, write_result, {"as_given": ["10", "01"], "temperature-1": ["11", "10"]})
    result = write_result("g", {"sums": "10"})
    assert cli.main(["table", str(result), "--sensitivity", str(folder), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert "## pass@1, greedy" in text
    assert "## Sensitivity to the setting" in text


def test_settings_as_results_and_results_as_settings_are_refused_with_the_remedy(
    tmp_path: Path, write_result: ResultWriter, capsys: pytest.CaptureFixture[str]
):
    folder = write_settings(tmp_path, write_result, {"as_given": ["10", "01"]})
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["table", str(folder), *out]) == 2
    assert "give it to --sensitivity, and not as RESULTS" in capsys.readouterr().err
    assert cli.main(["table", "--sensitivity", str(folder / "as_given"), *out]) == 2
    assert "no settings.json; give the --out of verl-ispo eval with --vary-..." in capsys.readouterr().err
    assert cli.main(["table", *out]) == 2
    assert "give at least one folder that verl-ispo eval has written" in capsys.readouterr().err
    assert cli.main(["table", "--sensitivity", str(folder), "--curves", *out]) == 2
    assert "--curves, --cost, --audit and --reference are about RESULTS" in capsys.readouterr().err


@pytest.mark.parametrize(
    "noted", ["[]", '{"template": null, "settings": {"as_given": "nonsense"}}', '{"settings": {"../x": null}}']
)
def test_a_damaged_note_is_refused(noted: str, tmp_path: Path):
    (tmp_path / "settings.json").write_text(noted)
    with pytest.raises(UserError, match=r"settings\.json: cannot be read"):
        load_sensitivity(tmp_path)


def test_settings_on_other_problems_are_refused(tmp_path: Path, write_result: ResultWriter):
    folder = write_settings(tmp_path, write_result, {"as_given": ["10", "01"], "temperature-1": ["11"]})
    with pytest.raises(UserError, match="not on the same problems"):
        load_sensitivity(folder)


def test_where_settings_differ_by_chance_the_best_flatters_and_the_other_half_does_not():
    rng = np.random.default_rng(0)
    settings = [[rng.binomial(1, 0.5, 40).astype(float)] for _ in range(8)]
    best = max(float(scores[0].mean()) for scores in settings)
    honest = chosen_on_other_half(settings)
    assert best > 0.55
    assert honest == pytest.approx(0.5, abs=0.05)


def test_a_setting_that_is_better_everywhere_is_chosen_on_any_half():
    worse, better = np.array([0.1, 0.3, 0.2, 0.6]), np.array([0.2, 0.4, 0.3, 0.7])
    assert chosen_on_other_half([[worse], [better]]) == pytest.approx(better.mean())
    assert chosen_on_other_half([[worse, worse], [better, worse]]) == pytest.approx((better.mean() + worse.mean()) / 2)
    assert chosen_on_other_half([[np.array([1.0])], [np.array([0.0])]]) is None

"""The audit of the grader: what is drawn, what a person may do to the file, and the error rate that comes of it.

Derivation: populations and errors are laid out by hand; the coverage of the interval is summed exactly over every
outcome of a draw without replacement (hypergeometric), not simulated.

Not exercised: real spreadsheets; what they write (a byte order mark, semicolons, quoted line breaks) is imitated.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from scipy import stats

from tests.evaluation.conftest import ResultWriter
from verl_ispo import cli
from verl_ispo.evaluation.audit_draw import AUDIT_CSV, AUDIT_JSON, allocate, safe_cell
from verl_ispo.evaluation.audit_rates import Stratum, error_rate
from verl_ispo.evaluation.results import QUESTIONS_NAME, SAMPLES_NAME


def table(folders: list[Path], out: Path, *more: str) -> int:
    return cli.main(["table", *map(str, folders), "--out", str(out), "--format", "md", *more])


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / AUDIT_CSV).read_text(encoding="utf-8-sig"), newline="")))


def fill(out: Path, verdict_of, separator: str = ",") -> None:
    """Write a person's verdicts: ``verdict_of`` a row."""
    rows = rows_of(out)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows([{**row, "verdict": verdict_of(row)} for row in rows])
    (out / AUDIT_CSV).write_text(text.getvalue(), encoding="utf-8-sig", newline="")


def change_samples(folder: Path, change) -> None:
    lines = [json.loads(line) for line in (folder / SAMPLES_NAME).read_text().splitlines()]
    (folder / SAMPLES_NAME).write_text(
        "".join(json.dumps({**line, **change(position, line)}) + "\n" for position, line in enumerate(lines))
    )


@pytest.fixture
def folder(write_result: ResultWriter) -> Path:
    """100 greedy samples: 60 correct, 30 wrong, 9 without an answer, 1 in which the grader ran out of time."""
    folder = write_result("a", {"x": "1" * 60 + "0" * 40})
    statuses = {**dict.fromkeys(range(90, 99), "no_answer"), 99: "timeout"}
    change_samples(folder, lambda position, _: {"status": statuses[position]} if position in statuses else {})
    return folder


def test_half_are_accepted_half_rejected_and_statuses_share_evenly(folder: Path, tmp_path: Path):
    assert table([folder], tmp_path / "t", "--audit") == 0
    drawn = Counter((row["grader_says"], row["grader_status"]) for row in rows_of(tmp_path / "t"))
    assert drawn == {
        ("correct", "correct"): 25,
        ("incorrect", "wrong"): 15,
        ("incorrect", "no_answer"): 9,
        ("incorrect", "timeout"): 1,
    }
    assert len({row["question_id"] for row in rows_of(tmp_path / "t")}) == 50


def test_small_populations_are_drawn_whole_and_the_rest_goes_to_the_others():
    assert allocate({"correct": 3, "incorrect: wrong": 500}, 50) == {"correct": 3, "incorrect: wrong": 47}
    assert allocate({"correct": 2, "incorrect: wrong": 1}, 50) == {"correct": 2, "incorrect: wrong": 1}
    assert allocate({"incorrect: wrong": 500}, 50) == {"incorrect: wrong": 50}


def test_a_seed_gives_one_draw_in_an_order_that_does_not_tell_the_verdict(folder: Path, tmp_path: Path):
    for name, seed in (("a1", 0), ("a2", 0), ("b", 1)):
        assert table([folder], tmp_path / name, "--audit", "--audit-seed", str(seed), "--audit-samples", "20") == 0
    first, again, other = ([row["question_id"] for row in rows_of(tmp_path / name)] for name in ("a1", "a2", "b"))
    assert first == again != other
    says = [row["grader_says"] for row in rows_of(tmp_path / "a1")]
    assert says not in (sorted(says), sorted(says, reverse=True))


def test_the_text_of_a_model_is_bounded_visible_and_no_formula(write_result: ResultWriter, tmp_path: Path):
    folder = write_result("a", {"x": "10"}, truth="-3")
    hostile = '=HYPERLINK("http://x","y")'
    change_samples(
        folder,
        lambda position, _: {
            "text": hostile if position == 0 else "word " * 4000 + "\x1b[31m\u202e the end",
            "prediction": ["@SUM(1)", "-3"][position],
        },
    )
    questions = (folder / QUESTIONS_NAME).read_text().replace('"?"', '"+1, \\"quoted\\",\\nnext line"')
    (folder / QUESTIONS_NAME).write_text(questions)
    assert table([folder], tmp_path / "t", "--audit") == 0
    by_id = {row["question_id"]: row for row in rows_of(tmp_path / "t")}
    assert by_id["x-0"]["response_end"] == "'" + hostile
    assert by_id["x-0"]["extracted_answer"] == "'@SUM(1)"
    assert by_id["x-0"]["ground_truth"] == "'-3"
    assert by_id["x-0"]["question"] == '\'+1, "quoted",\nnext line'
    end = by_id["x-1"]["response_end"]
    assert end.startswith("[18,514 characters before this] ")
    assert end.endswith("<U+001B>[31m<U+202E> the end")
    assert len(end) < 1700


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", " =1", "\r=1", "＝1"])
def test_what_starts_a_formula_gets_an_apostrophe(text: str):
    assert safe_cell(text) == "'" + text
    assert safe_cell("x" + text) == "x" + text


def test_without_verdicts_the_table_says_nothing_and_with_them_the_rates(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Of 25 accepted the person calls 1 incorrect: 60 * 1/25 = 2.4 of 60. Of 15 wrong 3 are correct: 30 * 3/15 = 6; of
    the 9 without an answer none, of the one time-out one: 7 of the 40 rejected. In all 9.4 of 100.
    """
    out = tmp_path / "t"
    assert table([folder], out, "--audit") == 0
    assert "checked by a person" not in capsys.readouterr().out
    marked: Counter[str] = Counter()

    def verdict(row: dict[str, str]) -> str:
        marked[row["grader_status"]] += 1
        wrongly = (
            marked[row["grader_status"]]
            <= {"correct": 1, "wrong": 3, "no_answer": 0, "timeout": 1}[row["grader_status"]]
        )
        return "Correct " if (row["grader_says"] == "correct") != wrongly else "i"

    fill(out, verdict, separator=";")
    assert table([folder], out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "checked by a person on 50 of 100 samples" in said
    assert "it grades 9.4 % [" in said
    assert "accepts 4.0 % [" in said
    assert "rejects 17.5 % [" in said
    assert "correct 1 of 25 (of 60), incorrect: no_answer 0 of 9 (of 9), incorrect: timeout 1 of 1 (of 1)" in said
    assert said.count("checked by a person") == 1
    assert "checked by a person" in (out / "table.md").read_text()


def test_unclear_and_empty_verdicts_are_left_out_and_counted(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "t"
    table([folder], out, "--audit")
    fill(out, lambda row: {"1": "unclear", "2": ""}.get(row["number"], row["grader_says"]))
    table([folder], out)
    said = capsys.readouterr().out
    assert "on 48 of 100 samples, drawn at random by status (1 unclear, 1 not judged yet, left out)" in said


def test_a_status_without_a_verdict_leaves_its_rate_unknown(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "t"
    table([folder], out, "--audit")
    fill(out, lambda row: "" if row["grader_status"] == "wrong" else row["grader_says"])
    table([folder], out)
    said = capsys.readouterr().out
    assert "it grades an unknown share" in said
    assert "accepts 0.0 % [0.0, 13.7]" in said  # Clopper-Pearson, 0 of 25


def test_a_file_with_verdicts_is_never_overwritten(folder: Path, tmp_path: Path, write_result: ResultWriter, capsys):
    out = tmp_path / "t"
    table([folder], out, "--audit")
    fill(out, lambda row: row["grader_says"])
    before = (out / AUDIT_CSV).read_bytes()
    assert table([folder], out, "--audit") == 0
    assert "left as it is" in capsys.readouterr().out
    assert table([folder], out, "--audit", "--audit-seed", "7") == 2
    assert "never overwritten; move audit.csv and audit.json away" in capsys.readouterr().err
    other = write_result("b", {"x": "1" * 100}, method="ISPO")
    assert table([folder, other], out, "--audit") == 2
    assert table([folder, other], out) == 0
    assert "about other results than this table's, so they are not used here" in capsys.readouterr().out
    (out / AUDIT_JSON).unlink()
    assert table([folder], out, "--audit") == 2
    assert (out / AUDIT_CSV).read_bytes() == before


def test_a_file_without_verdicts_is_drawn_again(folder: Path, tmp_path: Path):
    out = tmp_path / "t"
    table([folder], out, "--audit")
    assert table([folder], out, "--audit", "--audit-samples", "10") == 0
    assert len(rows_of(out)) == 10


def test_a_kill_between_the_two_files_leaves_nothing_to_conclude_from(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "t"
    table([folder], out, "--audit")
    (out / AUDIT_JSON).unlink()
    assert table([folder], out) == 0
    assert "checked by a person" not in capsys.readouterr().out
    assert table([folder], out, "--audit") == 0
    assert (out / AUDIT_JSON).exists()


def test_new_labels_do_not_make_other_samples(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "t"
    table([folder], out, "--audit")
    fill(out, lambda row: row["grader_says"])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["labels"]["method"] = "renamed"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert table([folder], out) == 0
    assert "it grades 0.0 % [" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace("verdict", "judgement", 1), r"line 1: the columns number and verdict are needed"),
        (lambda text: text.replace(",correct,,", ",perhaps,,", 1), r"line \d+: the verdict 'perhaps' on sample \d+"),
        (lambda text: text.replace("\n1,", "\n99,", 1), r"line 2: number '99' was not drawn \(1 to 50\)"),
        (lambda text: text.replace("\n2,", "\n1,", 1), r"line 3: number 1 is there twice"),
        (lambda text: text.replace("remark", "remark\udcff", 1), "save it as CSV in UTF-8"),
    ],
)
def test_a_person_is_told_the_line_and_the_remedy(folder: Path, tmp_path: Path, capsys, damage, said: str):
    out = tmp_path / "t"
    table([folder], out, "--audit")
    fill(out, lambda row: row["grader_says"])
    text = (out / AUDIT_CSV).read_text(encoding="utf-8-sig")
    (out / AUDIT_CSV).write_bytes(damage(text).encode("utf-8", "surrogateescape"))
    assert table([folder], out) == 2
    assert re.search(said, capsys.readouterr().err)


def test_the_interval_covers_at_least_95_percent_of_all_draws():
    """Two strata of 30 and 10 samples with any number of errors; 8 and 5 are drawn without replacement."""
    sizes, judged = (30, 10), (8, 5)
    for wrong in product((0, 1, 3, 9, 30), (0, 1, 5)):
        truth = sum(wrong) / sum(sizes)
        covered = 0.0
        for errors in product(range(judged[0] + 1), range(judged[1] + 1)):
            chance = 1.0
            for size, bad, drawn, seen in zip(sizes, wrong, judged, errors, strict=True):
                chance *= stats.hypergeom.pmf(seen, size, bad, drawn)
            if chance:
                interval = error_rate({str(k): Stratum(sizes[k], judged[k], errors[k]) for k in range(2)}).interval
                covered += chance * (interval.low - 1e-12 <= truth <= interval.high + 1e-12)
        assert covered >= 0.95, wrong


def test_a_stratum_that_was_judged_as_a_whole_is_known():
    rate = error_rate({"correct": Stratum(4, 4, 1), "incorrect: wrong": Stratum(6, 6, 0)})
    assert (rate.rate, rate.interval.low, rate.interval.high) == pytest.approx((0.1, 0.1, 0.1))


def test_an_audit_needs_a_finished_result(write_result: ResultWriter, tmp_path: Path, capsys):
    assert table([write_result("a", {"x": "1"}, finished=False)], tmp_path / "t", "--audit") == 2
    assert "none of the results is finished" in capsys.readouterr().err

"""The page: its numbers are the logs', what is missing is a gap that says so, and model text stays text.

Derivation: made-up logs with known values; the page is parsed with the standard library's HTML parser, and what a
browser would act on (elements, attributes) is compared with what our own templates write.

Not exercised: how it looks (see `test_in_chromium` and the pictures in docs/report.md), logs of thousands of steps.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.made_up_run import metrics_at, update_of, write_dump, write_metrics, write_run
from verl_ispo import cli
from verl_ispo.report import line_chart
from verl_ispo.report.build import build_report
from verl_ispo.report.chart_panels import Drawing
from verl_ispo.report.config_diff import config_differences
from verl_ispo.report.line_chart import Axes, Line, draw_lines, running_mean
from verl_ispo.report.loaded_run import load_run
from verl_ispo.report.rollout_view import MAX_ROLLOUTS_SHOWN, show_group
from verl_ispo.runs.rollout_dump.reader import read_groups

HOSTILE = [
    "<script>alert(1)</script>\\boxed{42}",
    '"><img src=x onerror=alert(1)>\\boxed{<b>1</b>}',
    "</span></div></details><style>*{display:none}</style>\\boxed{{{}}}",
    "{{ 7*7 }}{% raw %}\u202e\u2066\x00\x1b[31m\ud800\ufeff\u2028\\boxed{<!--}",
    "&lt;script&gt;" + "z\u0301\u0301\u0301\u0301\u0301\u0301" * 50 + "\\boxed{]]>}",
]
ALLOWED_ELEMENTS = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "main", "footer", "nav", "section"),
    *("h1", "h2", "h3", "h4", "p", "a", "b", "i", "ul", "li", "div", "span", "small", "code", "br"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary", "input", "label"),
    *("svg", "g", "path", "defs", "use", "clippath", "rect", "text", "line"),
}


class Elements(HTMLParser):
    """Elements and attributes of a page, as a browser's parser would make them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements[tag] += 1
        for name, value in attributes:
            self.attributes[name] += 1
            if name == "id":
                self.ids[value] += 1
            if name in ("href", "src", "xlink:href", "action"):
                self.addresses.append(value)

    def handle_data(self, data):
        self.text.append(data)


def report(*runs: Path | str, **options) -> str:
    settings = {"table": None, "steps": None, "max_tokens": 300, "early_steps": None, **options}
    return build_report([str(run) for run in runs], **settings)[0]


def cells(html: str, label: str) -> list[str]:
    """Cells of the row of key numbers with this label."""
    row = re.search(rf"<tr><td>{re.escape(label)}</td>(.*?)</tr>", html).group(1)
    return re.findall(r"<td class=\"number\">(.*?)</td>", row)


def panel(html: str, title: str) -> str:
    return html[html.index(f"<h4>{title}</h4>") :].split('<div class="panel')[0]


def test_numbers_are_those_of_the_logs(tmp_path: Path):
    write_metrics(tmp_path / "a" / "metrics.1.jsonl", {step: metrics_at(step) for step in range(1, 21)})
    write_metrics(
        tmp_path / "b" / "metrics.1.jsonl",
        {step: {**metrics_at(step), "ispo/zero_adv_rate/outcome": 0.5, "timing_s/step": 20.0} for step in range(1, 11)},
    )
    html = report(tmp_path / "a", tmp_path / "b")
    # 0.25 + 0.01 * mean(1..20) = 0.355; the last tenth of 20 steps are 19 and 20, of 10 steps the last alone.
    assert cells(html, "zero-advantage groups by outcome, mean") == ["35.5 %", "50.0 %"]
    assert cells(html, "critical-token entropy, incorrect rollouts, last tenth (nats)") == ["-0.85", "0.1"]
    assert cells(html, "training score, first → last tenth") == ["0.515 → 0.695", "0.51 → 0.6"]
    assert cells(html, "time per step, median (s)") == ["10", "20"]
    assert cells(html, "ISPO&#39;s share of it, median") == ["5.0 %", "2.5 %"]
    assert cells(html, "the dump&#39;s share of all time") == ["1.0 %", "0.5 %"]
    assert "a: 35.5 % of the groups had no advantage by outcome and 0.0 % in the reward that was trained on" in html
    assert "They differ in length: compare them up to step 10." in html
    under_the_chart = panel(html, "Zero-advantage groups, by outcome")
    rows = re.findall(r"<tr><td>(\d+)</td><td class=number>(.*?)</td><td class=number>(.*?)</td></tr>", under_the_chart)
    assert rows[0] == ("1", "26.0 %", "50.0 %")
    assert rows[-1] == ("20", "45.0 %", "–")


def test_the_hinge_threshold_is_drawn_from_the_config(tmp_path: Path):
    run = write_run(tmp_path / "run")
    assert "hinge below τ_H = 0.3" in panel(report(run), "On critical tokens: run")
    (run / "dump" / "run.json").unlink()
    assert "hinge below" not in panel(report(run), "On critical tokens: run")


def test_what_a_run_does_not_have_is_a_gap_that_names_it(tmp_path: Path):
    write_metrics(tmp_path / "verl" / "metrics.1.jsonl", {1: {"critic/score/mean": 0.5, "timing_s/step": 3.0}})
    full = write_run(tmp_path / "full")
    html = report(tmp_path / "verl", full)
    assert "Not drawn: verl (no ispo/zero_adv_rate/outcome)." in panel(html, "Zero-advantage groups, by outcome")
    assert "This run has no ispo/ifd/correct/mean or ispo/ifd/wrong/mean." in panel(html, "IFD: verl")
    assert "verl: no rollout dump (dump/): no rollout view and no figure 6" in html
    assert "verl: no config snapshot: train with hydra.run.dir=RUN" in html
    assert "Fewer than two runs have a config snapshot" in html
    alone = report(tmp_path / "verl")
    assert "No run has ispo/zero_adv_rate/outcome." in panel(alone, "Zero-advantage groups, by outcome")
    assert "<svg" not in panel(alone, "Zero-advantage groups, by outcome")
    assert "No run has per-prompt outcomes, which need trainer.v1.ispo.dump_dir." in alone
    assert "No rollouts: none of these runs has a dump that can be read." in alone


def test_a_nan_breaks_the_line_and_shows_as_a_dash(tmp_path: Path):
    steps = {step: metrics_at(step) for step in range(1, 6)}
    steps[3]["ispo/order_violation_rate"] = None
    write_metrics(tmp_path / "metrics.1.jsonl", steps)
    drawn = panel(report(tmp_path), "Order violations")
    assert re.search(r"<tr><td>3</td><td class=number>–</td></tr>", drawn)
    # Steps 1-2 and 4-5: the curve is drawn in two strokes.
    curve = next(path for path in re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*--series0', drawn))
    assert curve.count("M") == 2


def test_an_empty_dump_is_a_gap(tmp_path: Path):
    run = write_run(tmp_path / "run")
    for file in (run / "dump" / "rollouts").iterdir():
        file.write_text("")
    html = report(run)
    assert "run: step_000004_0.jsonl holds no rollouts" in html
    assert "No rollouts: none of these runs" in html
    for file in (run / "dump" / "rollouts").iterdir():
        file.unlink()
    assert "run: the dump holds no rollouts" in report(run)


def test_figure_six_counts_from_the_dump(tmp_path: Path):
    run = write_run(tmp_path / "run", steps=4)
    html = report(run, early_steps=2)
    # Both prompts fail at step 1 and are drawn at every step; 6*7 is solved from step 3 on, 1+1 never.
    assert "<tr><td>run</td><td class=number>2</td><td class=number>2</td><td class=number>2</td>" in html
    assert "1 of 2" in panel(html, "In numbers")
    drawn = panel(html, "Failed early, solved by this step")
    assert re.findall(r"<tr><td>(\d)</td><td class=number>(.*?)</td></tr>", drawn) == [
        ("2", "0.0 %"),
        ("3", "50.0 %"),
        ("4", "50.0 %"),
    ]


def test_one_pass_over_the_data_is_too_little_for_figure_six(tmp_path: Path):
    run = write_run(tmp_path / "run", steps=1)
    assert "that takes more than one pass over the data" in panel(report(run), "Failed early, solved by this step")


def test_a_rollout_shows_the_numbers_of_the_dump(tmp_path: Path):
    run = write_run(tmp_path / "run", steps=4)
    html = report(run, steps=[4])
    group = next(group for group in read_groups(run / "dump", 4)[0] if group.prompt_text == "6*7=")
    section = html[html.index("run: mixed: 1 of 2 correct") :].split('<details class="group"')[0]
    for rollout in group.rollouts:
        for number in (rollout.parts["ifd"], rollout.parts["token"], rollout.composite, rollout.advantage, rollout.ifd):
            assert f"{number:+.3f}" in section
    assert "Expected answer:</b> 42" in section
    assert re.search(r"advantage = \(trained on [+−] \d\.\d{3}\) / \d\.\d{3}", section)
    first = group.rollouts[0]
    assert section.count('class="e') == sum(len(rollout.token_texts) for rollout in group.rollouts)
    assert len(re.findall(r'class="[^"]*\banswer"', section)) == 4
    assert len(re.findall(r'class="[^"]*\blead-in"', section)) == 2 * len("\\boxed{")
    assert len(re.findall(r'class="[^"]*\bcritical\b', section)) == sum(
        len(rollout.critical) for rollout in group.rollouts
    )
    assert first.correct


def test_a_golden_fragment(tmp_path: Path):
    write_metrics(tmp_path / "run" / "metrics.1.jsonl", {1: metrics_at(1)})
    write_dump(tmp_path / "run" / "dump", [update_of(1, [("q", [("\\boxed{<}", True), ("x", False)])])])
    html = report(tmp_path / "run")
    for fragment in (
        '<div class="text"><span class="e0 d5 in-d lead-in" title="0: H 0, p 0.9048, drift +0.700">\\</span>'
        '<span class="e2 d3 lead-in" title="1: H 0.4, p 0.8958, drift 0.000">b</span>',
        '<span class="e3 d3 answer" title="7: H 0.8, p 0.8437, drift 0.000">&lt;</span>'
        '<span class="e4 d3" title="8: H 1.2, p 0.8353, drift 0.000">}</span></div>',
        "IFD +0.500 nats per token, R_token 0.000, critical tokens 0 (entropy filter 1, drift filter 3).",
        '<tr><td><b>all</b></td><td class="number">0.8437</td><td class="number">0.5117</td>',
        '<span class="e0 d5 critical in-e in-d" title="0: H 0, p 0.8869, drift +0.700">x</span></div>',
        "No answer found: IFD is 0.",
        '<tr><td>0</td><td><code>x</code></td><td class="number">0</td><td class="number">-0.120</td>'
        '<td class="number">+0.700</td><td class="number">-0.300</td></tr>',
    ):
        assert fragment in html


def test_hostile_text_stays_text(tmp_path: Path):
    benign = write_run(tmp_path / "benign" / "run")
    hostile = tmp_path / "hostile" / "run"
    write_metrics(hostile / "metrics.1.jsonl", {1: metrics_at(1)})
    write_dump(
        hostile / "dump",
        [
            update_of(
                1, [(f"<script>prompt</script>{text}", [(text, True), (text[::-1], False)]) for text in HOSTILE[:4]]
            )
        ],
        data={"seed": "<img src=y>", "<b>key</b>": "</style><script>1</script>"},
    )
    with (hostile / "metrics.1.jsonl").open("a") as file:
        data = {**metrics_at(2), "val-core/<script>set</script>/acc/mean@1": 0.5, "ispo/<i>": 1.0}
        file.write(json.dumps({"step": 2, "data": data}) + "\n")
    table = tmp_path / "table.csv"
    table.write_text('model,"<script>x</script>"\n"<img src=z onerror=1>",0.5\n')
    html = report(benign, f"$<script>name</script>$\u202e={hostile}", table=table)
    page = Elements(html)
    assert set(page.elements) <= ALLOWED_ELEMENTS
    assert page.elements["style"] == 1
    assert page.elements["input"] == 3
    assert not [name for name in page.attributes if name.startswith("on")]
    assert all(address.startswith("#") or address == "data:," for address in page.addresses)
    text = "".join(page.text)
    assert "<script>prompt</script>" in text
    assert "<script>set</script>" in text
    assert "<img src=z onerror=1>" in text
    assert not set(html) & {"\u202e", "\u2066", "\x00", "\x1b", "\ufeff", "\u2028"}
    assert "‹U+202E›" in html
    assert "49" not in re.findall(r"7\*7.{0,40}", text)
    html.encode("utf-8")


def test_the_page_needs_nothing_from_outside_and_no_script(tmp_path: Path):
    page_text = report(write_run(tmp_path / "run"), write_run(tmp_path / "other"))
    page = Elements(page_text)
    assert "script" not in page.elements
    assert "default-src 'none'; style-src 'unsafe-inline'" in page_text
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?:https?:)?//", page_text)
    assert "@import" not in page_text
    assert "url(h" not in page_text
    assert [name for name, count in page.ids.items() if count > 1] == []
    for address in page.addresses:
        assert address == "data:," or address[1:] in page.ids


def test_long_responses_and_large_groups_are_bounded_and_say_so(tmp_path: Path):
    long_text = "a" * 3000 + "\\boxed{1}" + "b" * 2000
    members = [(long_text, at % 2 == 0) for at in range(MAX_ROLLOUTS_SHOWN + 4)]
    write_metrics(tmp_path / "metrics.1.jsonl", {1: metrics_at(1)})
    write_dump(tmp_path / "dump", [update_of(1, [("q", members)])])
    html = report(tmp_path, max_tokens=90)
    assert "Texts of 8 of 12 rollouts" in html
    assert html.count('<span class="e') <= 90 * MAX_ROLLOUTS_SHOWN + 6
    assert "4919 not shown" in html
    group = read_groups(tmp_path / "dump", 1)[0][0]
    shown = show_group("run", group, 90).rollouts[0]
    assert "".join(token.text for token in shown.tokens if "answer" in token.classes) == "1"
    assert sum(bool(token.classes) for token in shown.tokens) + shown.left_out == len(long_text)


def test_advantages_that_do_not_follow_from_the_rewards_are_not_explained_away(tmp_path: Path):
    update = update_of(1, [("q", [("\\boxed{1}", True), ("\\boxed{2}", False)])])
    update.advantage[0] = 9.0
    write_dump(tmp_path, [update])
    group = read_groups(tmp_path, 1)[0][0]
    assert "do not follow from them alone" in show_group("run", group, 50).rule


def test_what_a_critical_token_adds_averages_to_the_token_reward(tmp_path: Path):
    write_dump(tmp_path, [update_of(1, [("q", [("so it is \\boxed{1}", True), ("so it was \\boxed{2}", False)])])])
    for shown in show_group("run", read_groups(tmp_path, 1)[0][0], 50).rollouts:
        adds = [token.adds for token in shown.critical_tokens]
        assert adds
        assert shown.rollout.token_reward == pytest.approx(sum(adds) / len(adds), abs=1e-5)


def test_config_differences_leave_out_what_is_equal_and_mask_secrets(tmp_path: Path):
    for name, weight in (("a", 0.5), ("b", 0.25)):
        run = tmp_path / name
        write_metrics(run / "metrics.1.jsonl", {1: metrics_at(1)})
        (run / ".hydra").mkdir()
        (run / ".hydra" / "config.yaml").write_text(
            f"algorithm:\n  ispo: {{ifd_weight: {weight}, token_weight: 0.1}}\n"
            f"trainer: {{default_local_dir: /runs/{name}, api_key: {name}{name}, seeded: '${{oc.env:HOME}}'}}\n"
            + ("only: here\n" if name == "a" else "")
        )
    differences = config_differences([load_run(name, tmp_path / name) for name in "ab"])
    assert [(difference.key, difference.values, difference.is_place) for difference in differences] == [
        ("algorithm.ispo.ifd_weight", ["0.5", "0.25"], False),
        ("only", ["here", "(not set)"], False),
        ("trainer.default_local_dir", ["/runs/a", "/runs/b"], True),
    ]
    assert load_run("a", tmp_path / "a").config["trainer.seeded"] == "${oc.env:HOME}"


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "\x00"], ids=["broken", "list", "binary"])
def test_a_config_that_cannot_be_read_is_a_gap(tmp_path: Path, text: str):
    write_metrics(tmp_path / "metrics.1.jsonl", {1: metrics_at(1)})
    (tmp_path / "config.yaml").write_text(text)
    run = load_run("run", tmp_path)
    assert run.config == {}
    assert [gap for gap in run.gaps if gap.startswith("config.yaml ")]


def test_the_command_writes_one_file_and_reports_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = write_run(tmp_path / "run")
    assert cli.main(["report", str(run), "--out", str(tmp_path / "out")]) == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.html"]
    assert "self-contained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "nested/a"], "two runs are called 'a'"),
        (["x=a", "x=nested/a"], "two runs are called 'x'"),
        (["nowhere"], "nowhere does not exist"),
        (["a", "--steps", "3"], "no run dumped rollouts at that step"),
        (["a", "--table", "nowhere.csv"], "--table nowhere.csv does not exist"),
        (["a", "--table", "ragged.csv"], "ragged.csv: row 2 has 1 cells, the header has 2"),
        (["a", "--table", "empty.csv"], "empty.csv has no rows"),
    ],
)
def test_bad_input_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments, message
):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "nested/a"):
        write_metrics(Path(folder) / "metrics.1.jsonl", {1: metrics_at(1)})
    Path("ragged.csv").write_text("a,b\n1\n")
    Path("empty.csv").write_text("a,b\n")
    assert cli.main(["report", *arguments, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert message in error
    if "two runs" in message:
        assert "nested/a" in error
        assert " a " in error.replace("=", " ").replace(":", " ")
    assert not Path("out").exists()


def test_the_table_is_shown_as_it_is(tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text('model,method,AIME24 (n=30)\nQwen,"ISPO, literal",13.3 [6.7; 23.3]\n')
    html = report(write_run(tmp_path / "run"), table=table)
    assert "<tr><td>Qwen</td><td>ISPO, literal</td><td class=number>13.3 [6.7; 23.3]</td></tr>" in html


def test_a_chart_is_the_same_bytes_each_time_and_long_runs_are_smoothed():
    lines = [Line("run", range(500), [0.1 * (at % 7) for at in range(500)], "#a0b100")]
    axes = Axes("nats", (0, 499))
    assert draw_lines(lines, axes, "n", "d") == draw_lines(lines, axes, "n", "d")
    assert running_mean([1.0, float("nan"), 3.0], 3)[[0, 2]].tolist() == [1.0, 3.0]


def test_a_change_of_settings_is_a_line_in_every_chart_and_a_sentence(tmp_path: Path) -> None:
    """A run that went on with other settings looked as if it had had them from the start."""
    write_run(tmp_path / "plain")
    write_run(tmp_path / "changed")
    entry = {"step": 2, "start": 2, "changed": {"algorithm.ispo.<b>": ["1.0", "0.5"]}}
    (tmp_path / "changed/changes.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
    plain, changed = load_run("plain", tmp_path / "plain"), load_run("changed", tmp_path / "changed")
    assert (plain.changed_steps, changed.changed_steps) == ((), (2,))
    assert changed.gaps[-1] == (
        "went on with other settings after step 2 (dotted line): algorithm.ispo.<b>: 1.0 -> 0.5"
    )
    assert Drawing.of([plain, changed]).changes() == [(2, line_chart.SERIES[1])]
    assert Drawing.of([plain, changed]).changes("plain") == []
    line = Line("x", [1, 2, 3], [1.0, 2.0, 3.0], line_chart.SERIES[0])
    axes = Axes("score", (1, 3))
    without = draw_lines([line], axes, "c", "d")
    marked = draw_lines([line], replace(axes, changes=[(2, line_chart.SERIES[1])]), "c", "d")
    assert "var(--series1)" in marked
    assert "var(--series1)" not in without
    page, _ = build_report([str(tmp_path / "plain"), str(tmp_path / "changed")], None, None, 400, None)
    assert "after step 2 (dotted line): algorithm.ispo.&lt;b&gt;" in page


def test_a_damaged_line_of_changes_is_said_and_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    good = json.dumps({"step": 3, "start": 2, "changed": {"a.b": ["1", "2"]}})
    lines = [
        "{",
        "[1]",
        json.dumps({"step": "x", "changed": {}}),
        json.dumps({"step": 1, "changed": {"a": "no pair"}}),
        good,
    ]
    (tmp_path / "run/changes.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = load_run("run", tmp_path / "run")
    assert run.changed_steps == (3,)
    assert [gap.split(" is not")[0] for gap in run.gaps[-5:-1]] == [
        f"line {line} of changes.jsonl" for line in range(1, 5)
    ]
    assert "a.b: 1 -> 2" in run.gaps[-1]

"""``verl-ispo probe``: samples, grades, scores, measures, judges, and writes it all down."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial

import torch
from tqdm import tqdm

from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.end_of_sequence import end_of_sequence_ids
from verl_ispo.evaluation.cpu_sampler import CPUSampler
from verl_ispo.evaluation.grader import Grader
from verl_ispo.evaluation.local_source import local_source
from verl_ispo.evaluation.manifest import FORMAT, MANIFEST_NAME, refuse_differences, write_manifest
from verl_ispo.evaluation.model_folder import Checkpoint, model_digest, resolve_checkpoint
from verl_ispo.evaluation.questions import Question, questions_digest, read_distinct_questions
from verl_ispo.evaluation.response_source import ResponseSource
from verl_ispo.probe.measures import ProbeMeasures, measure
from verl_ispo.probe.preset_advantages import BESIDE, PresetRule, preset_rule, same_rules, signal_presets
from verl_ispo.probe.probe_files import ProbeResult, rollout_records, summary_record, terminal_table, terminal_words
from verl_ispo.probe.probe_options import ProbeOptions, check_options, ispo_overrides
from verl_ispo.probe.probe_rollouts import Rollout, choose_questions, graded, sample_rollouts
from verl_ispo.probe.regimes import judge
from verl_ispo.probe.score_log import ScoreLog, row_key
from verl_ispo.probe.scored_rollouts import ProbedTokenizer, ScoredRollouts, find_answers, scored_rollouts
from verl_ispo.probe.scored_rows import Row, RowScores, ScoringPlace, load_model, score_rows, scoring_place
from verl_ispo.probe.verdict_words import PAPER, verdict_words
from verl_ispo.process_lock import take_lock
from verl_ispo.signals.checks import NonFiniteSignalError
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.user_error import UserError

SAMPLES_NAME = "samples.jsonl"
SCORES_NAME = "scores.jsonl"
ROLLOUTS_NAME = "rollouts.jsonl"
PROBE_NAME = "probe.json"
PAGE_NAME = "probe.html"
LOCK_NAME = ".lock"
OUR_GRADER = "pkg://verl_ispo.grading"


def run(options: ProbeOptions) -> int:
    """The command; returns its exit status: 0, 2 for a fault that the user can correct, 130 if interrupted."""

    def work() -> None:
        result = probe(options)
        print(f"\n{terminal_table(result)}\n\n{terminal_words(result.words)}")
        print(f"\nPage: {options.out / PAGE_NAME}; numbers: {options.out / PROBE_NAME}; the rules: docs/probe.md")

    kept = f"interrupted; what was sampled and scored is kept in {options.out}, and the same command goes on"
    return run_command("verl-ispo probe", work, kept)


def probe(options: ProbeOptions) -> ProbeResult:
    """Run or finish a probe.

    In ``options.out``: ``manifest.json``, ``samples.jsonl`` and ``scores.jsonl``, which a second start reads, and
    ``rollouts.jsonl``, ``probe.json`` and ``probe.html``, which it writes again.

    Raises:
        UserError: for what the user can correct; what was sampled and scored until then is kept.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; the same.
    """
    check_options(options)
    overrides = ispo_overrides(options.overrides)
    names = list(dict.fromkeys([PAPER, *(options.methods or (*signal_presets(), *BESIDE))]))
    rules = same_rules(names, overrides)
    place = scoring_place(options.device, options.dtype)
    questions = choose_questions(read_distinct_questions(options.data), options.prompts, options.seed)
    grader = Grader(options.reward_function)
    grader.check_ground_truths(questions)
    source = local_source(options.as_evaluation(), questions)
    checkpoint = resolve_checkpoint(options.model)
    if source.sampler["name"] == "cpu":
        # half the time of an evaluation's float64; a second start reads the samples that are there either way
        source = replace(source, load=partial(CPUSampler, checkpoint.folder, torch.float32))
    reference = None if options.reference is None else resolve_checkpoint(options.reference)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        lock = take_lock(options.out / LOCK_NAME, options.out, "writing a probe there", "give another --out")
    except OSError as error:
        raise UserError(f"--out {options.out}: {error}") from error
    with lock:
        _begin_or_go_on(options, source, questions)
        drawn = sample_rollouts(
            source, questions, options.rollouts, options.temperature, options.seed, options.out / SAMPLES_NAME
        )
        if not drawn:
            raise UserError(f"{options.data}: each of the {len(questions)} prompts fills the model's context")
        print(f"Grading {len(drawn)} rollouts with {options.reward_function}", flush=True)
        rollouts = graded(drawn, source.prompts, grader)
        config = preset_rule(PAPER, overrides).config
        texts, grades_lists = source.prompts.token_texts, options.reward_function.startswith(OUR_GRADER)
        answers = find_answers(rollouts, texts, config, grades_lists)
        scores = ScoreLog(options.out / SCORES_NAME)
        try:
            batch = scored_rollouts(
                rollouts,
                answers,
                _tokenizer(checkpoint, texts),
                partial(_score, checkpoint, place, options.temperature, scores),
                None if reference is None else partial(_score, reference, place, options.temperature, scores),
            )
        finally:
            scores.close()
        try:
            measures = measure(batch, rules)
        except NonFiniteSignalError as error:
            raise UserError(f"{options.model}: {error}; try --dtype float32") from error
        result = _result(options, place, measures, rollouts, reference is not None)
        _write(options, result, rollouts, rules, batch)
    return result


def _result(
    options: ProbeOptions,
    place: ScoringPlace,
    measures: ProbeMeasures,
    rollouts: Sequence[Rollout],
    has_reference: bool,
) -> ProbeResult:
    from verl_ispo import __version__

    verdict = judge(measures)
    return ProbeResult(
        model=options.model,
        data=str(options.data),
        settings={
            "reward function": options.reward_function,
            "reference": options.reference or "the model itself",
            "temperature": options.temperature,
            "most new tokens": options.max_new_tokens,
            "seed": options.seed,
            "scored on": f"{place.device}, {place.dtype}",
            "overrides": " ".join(options.overrides) or "none",
        },
        measures=measures,
        verdict=verdict,
        words=verdict_words(measures, verdict, has_reference),
        undecided=sum(rollout.grade.status in ("timeout", "error") for rollout in rollouts),
        made_at=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def _begin_or_go_on(options: ProbeOptions, source: ResponseSource, questions: Sequence[Question]) -> None:
    """Write the manifest, or check that the folder was begun with the same sampling."""
    manifest = {
        "format": FORMAT,
        "model": dict(source.model),
        "options": {
            "prompts": options.prompts,
            "rollouts": options.rollouts,
            "temperature": options.temperature,
            "max_new_tokens": options.max_new_tokens,
            "context_tokens": source.prompts.context_tokens,
            "seed": options.seed,
        },
        "inputs": {"model_sha256": source.model_sha256, "questions_sha256": questions_digest(questions)},
        "sampler": dict(source.sampler),
    }
    if (options.out / MANIFEST_NAME).exists():
        refuse_differences(options.out, manifest)
        return
    foreign = sorted(path.name for path in options.out.iterdir() if path.name != LOCK_NAME)
    if foreign:
        raise UserError(
            f"--out {options.out}: the folder holds other files ({', '.join(foreign[:5])}) and no {MANIFEST_NAME}; "
            "give a new one"
        )
    write_manifest(options.out, manifest)


def _score(
    checkpoint: Checkpoint, place: ScoringPlace, temperature: float, log: ScoreLog, rows: Sequence[Row], what: str
) -> list[RowScores]:
    """The scores of rows under a model: those in the log, and those that are made now and put there."""
    scored_by = {
        "model": model_digest(checkpoint.folder),
        "device": place.device,
        "dtype": place.dtype,
        "temperature": temperature,
    }
    keys = [row_key(row, scored_by) for row in rows]
    missing = {key: row for key, row in zip(keys, rows, strict=True) if row.tail and log.get(key) is None}
    if missing:
        model = load_model(checkpoint.folder, place)
        wanted = list(missing)
        with tqdm(
            total=len(wanted),
            unit="row",
            desc=f"Scoring {what}",
            mininterval=1.0 if sys.stderr.isatty() else 10.0,
        ) as progress:
            for batch in score_rows(model, list(missing.values()), temperature):
                log.append([(wanted[index], scores) for index, scores in batch])
                progress.update(len(batch))
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return [(log.get(key) if row.tail else None) or RowScores((), ()) for key, row in zip(keys, rows, strict=True)]


def _tokenizer(checkpoint: Checkpoint, texts: TokenTexts) -> ProbedTokenizer:
    from transformers import AutoTokenizer, GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(checkpoint.folder)
    except OSError:
        generation = None
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    return ProbedTokenizer(
        texts=texts,
        end_of_sequence=end_of_sequence_ids(tokenizer.eos_token_id, generation),
        encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
        decode=lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False),
    )


def _write(
    options: ProbeOptions,
    result: ProbeResult,
    rollouts: Sequence[Rollout],
    rules: Mapping[PresetRule, Sequence[str]],
    batch: ScoredRollouts,
) -> None:
    records = rollout_records(rollouts, batch, rules)
    write_text(options.out / ROLLOUTS_NAME, (json.dumps(record) + "\n" for record in records))
    write_text(options.out / PROBE_NAME, json.dumps(summary_record(result), indent=2) + "\n")
    try:
        from verl_ispo.probe.probe_page import render
    except ModuleNotFoundError as error:
        raise UserError(f"the page needs the package {error.name}: pip install 'verl_ispo[plot]'") from error
    write_text(options.out / PAGE_NAME, render(result, records))

"""``verl-ispo eval``: samples a checkpoint on benchmarks and grades it; a killed run resumes where it stopped."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from data_prep.prompt_templates import load_template
from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.evaluation.confidence import mean_log_probs
from verl_ispo.evaluation.evaluation_options import EvaluationOptions, check_options
from verl_ispo.evaluation.grader import Grader
from verl_ispo.evaluation.local_source import local_source
from verl_ispo.evaluation.manifest import FORMAT, MANIFEST_NAME, read_manifest, refuse_differences, write_manifest
from verl_ispo.evaluation.prompt_template import with_template
from verl_ispo.evaluation.prompts import Prompts
from verl_ispo.evaluation.questions import Question, questions_digest, read_questions
from verl_ispo.evaluation.response_source import ResponseSource
from verl_ispo.evaluation.results import QUESTIONS_NAME, SAMPLES_NAME, EvaluationResult, load_result
from verl_ispo.evaluation.sampler import Completion, Sampler
from verl_ispo.evaluation.samples import LEAST_SAMPLES, SMALL_SET, PlannedSample, SampleLog, lacks_samples, plan_samples
from verl_ispo.evaluation.score_summary import format_summary, summarise
from verl_ispo.evaluation.timing import SamplingClock, device_name
from verl_ispo.process_lock import take_lock
from verl_ispo.user_error import UserError

NOT_SAMPLED = Completion("prompt_too_long", tokens=0, text="")
LOG_NAME = "samples.partial.jsonl"
SUMMARY_NAME = "summary.json"
LOCK_NAME = ".lock"


Load = Callable[[ResponseSource], Sampler]


def load_source(source: ResponseSource) -> Sampler:
    """The sampler of a source, for one evaluation alone."""
    return source.load()


def evaluate(options: EvaluationOptions, load: Load = load_source) -> dict[str, Any]:
    """Run or resume an evaluation; returns the summary, which is also in ``summary.json``.

    In ``options.out``: ``manifest.json``, ``questions.jsonl``, ``samples.partial.jsonl`` until all samples are
    there, then ``samples.jsonl`` and ``summary.json``. On a CPU these are the same bytes however often the run was
    interrupted. Beside them ``timing.jsonl``, which is not.

    Args:
        options (`EvaluationOptions`): of the evaluation.
        load (`Callable`, *optional*): gives the sampler of a source, so that several evaluations can share one.

    Raises:
        UserError: for what the user can correct; what was sampled until then is kept.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; what was sampled is kept.
    """
    check_options(options)
    questions = read_questions(options.benchmarks)
    if options.template is not None:
        questions = with_template(questions, load_template(options.template))
    _warn_of_few_samples(options.n, questions)
    summary = summarise(evaluate_questions(options, questions, load=load))
    write_text(options.out / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
    return summary


def evaluate_questions(
    options: EvaluationOptions,
    questions: Sequence[Question],
    settings: Mapping[str, Any] = MappingProxyType({}),
    load: Load = load_source,
) -> EvaluationResult:
    """`evaluate` on questions that need not be those of a file, and without a summary.

    Args:
        options (`EvaluationOptions`): ``benchmarks`` and ``template`` are not read.
        questions (`Sequence[Question]`): what is asked.
        settings (`Mapping`, *optional*): more entries of the manifest's ``options``, which a resumed run must repeat.
        load (`Callable`, *optional*): see `evaluate`.
    """
    check_options(options)
    grader = Grader(options.reward_function)
    grader.check_ground_truths(questions)
    source = _source(options, questions)
    manifest = _manifest(options, source, questions, grader)
    manifest["options"] |= settings
    plan = plan_samples(questions, options.n, options.temperature, options.seed)

    with _exclusive(options.out):
        _begin_or_resume(options, manifest, questions)
        samples_path = options.out / SAMPLES_NAME
        if not samples_path.is_file():
            log = SampleLog(options.out / LOG_NAME)
            try:
                _sample(options, plan, source, load, grader, log)
                log.publish(samples_path, [planned.key for planned in plan])
            finally:
                log.close()
        (options.out / LOG_NAME).unlink(missing_ok=True)
        return load_result(options.out)


def run(options: EvaluationOptions) -> int:
    """The command; returns its exit status: 0, 2 for a fault that the user can correct, 130 if interrupted."""

    def work() -> None:
        print(format_summary(evaluate(options)))
        samples = options.out / SAMPLES_NAME
        print(f"95 % intervals over problems. Samples: {samples}; next: verl-ispo table {options.out}")

    kept = f"interrupted; finished samples are kept in {options.out}, and the same command resumes"
    return run_command("verl-ispo eval", work, kept)


def _source(options: EvaluationOptions, questions: Sequence[Question]) -> ResponseSource:
    if options.server is None:
        return local_source(options, questions)
    try:
        from verl_ispo.evaluation.server_source import server_source
    except ModuleNotFoundError as error:
        raise UserError(f"--server needs the package {error.name}: pip install 'verl_ispo[server]'") from error
    return server_source(options, questions)


def _manifest(
    options: EvaluationOptions, source: ResponseSource, questions: Sequence[Question], grader: Grader
) -> dict[str, Any]:
    from verl_ispo import __version__

    benchmarks = {}
    for name in dict.fromkeys(question.benchmark for question in questions):
        of_benchmark = [question for question in questions if question.benchmark == name]
        benchmarks[name] = {"problems": len(of_benchmark), "sha256": questions_digest(of_benchmark)}
    return {
        "format": FORMAT,
        "labels": {
            "base_model": options.base_model or Path(options.model).name,
            "method": options.method or options.out.resolve().name,
            "training_seed": options.training_seed,
        },
        "model": dict(source.model),
        "options": {
            "n": options.n,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_new_tokens": options.max_new_tokens,
            "context_tokens": source.prompts.context_tokens,
            "seed": options.seed,
            "template": None if options.template is None else load_template(options.template).name,
        },
        "inputs": {"model_sha256": source.model_sha256, "benchmarks": benchmarks},
        "sampler": dict(source.sampler),
        "grader": {**grader.identity(), "verl_ispo": __version__},
    }


def _warn_of_few_samples(drawn: int, questions: Sequence[Question]) -> None:
    problems = Counter(question.benchmark for question in questions)
    small = [name for name, count in problems.items() if lacks_samples(count, drawn)]
    if small:
        print(
            f"warning: --n {drawn}: few for sets of at most {SMALL_SET} problems ({', '.join(small)}), of which the "
            f"chance of the sampling alone moves the score by points; give {LEAST_SAMPLES} or more to report it",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def _exclusive(out: Path) -> Iterator[None]:
    """Hold the output folder, which is made if it does not exist; no other process writes into it meanwhile."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = take_lock(out / LOCK_NAME, out, "writing an evaluation there", "give another --out")
    except OSError as error:
        raise UserError(f"--out {out}: {error}") from error
    with lock:
        yield


def _begin_or_resume(options: EvaluationOptions, manifest: dict[str, Any], questions: Sequence[Question]) -> None:
    out = options.out
    if (out / MANIFEST_NAME).exists():
        refuse_differences(out, manifest)
        recorded = read_manifest(out)
        # A label that is not given now stays as it is.
        labels = {
            name: recorded["labels"][name] if getattr(options, name) is None else value
            for name, value in manifest["labels"].items()
        }
        manifest = {**manifest, "labels": labels}
        if manifest["model"].get("training") is None and recorded["model"].get("training") is not None:
            # the run's folder has moved since
            manifest["model"]["training"] = recorded["model"]["training"]
        if recorded != manifest:
            print("Labels or paths in the manifest have changed; the samples are the same.", flush=True)
            write_manifest(out, manifest)
        return
    foreign = sorted(path.name for path in out.iterdir() if path.name not in (LOCK_NAME, QUESTIONS_NAME))
    if foreign:
        raise UserError(
            f"--out {out}: the folder holds other files ({', '.join(foreign[:5])}) and no {MANIFEST_NAME}; "
            "give a new one"
        )
    records = [
        {
            "benchmark": question.benchmark,
            "question_id": question.question_id,
            "question": question.text,
            "ground_truth": question.ground_truth,
            "prompt_sha256": question.prompt_digest(),
        }
        for question in questions
    ]
    write_text(out / QUESTIONS_NAME, "".join(json.dumps(record, default=str) + "\n" for record in records))
    write_manifest(out, manifest)


def _sample(
    options: EvaluationOptions,
    plan: Sequence[PlannedSample],
    source: ResponseSource,
    load: Load,
    grader: Grader,
    log: SampleLog,
) -> None:
    """Draw and grade what the log does not have yet."""
    prompts = source.prompts
    missing = [planned for planned in plan if planned.key not in log]
    if not missing:
        return
    if len(log):
        print(f"Resuming: {len(log)} of {len(plan)} samples are there.", flush=True)
    unsampled = [planned for planned in missing if prompts.response_limit(planned.question) == 0]
    missing = [planned for planned in missing if prompts.response_limit(planned.question) > 0]
    log.append(_records([(planned, NOT_SAMPLED) for planned in unsampled], prompts, grader))
    if not missing:
        return
    sampler = load(source)
    requests = [prompts.request(planned, options.top_p) for planned in missing]
    truncated = 0
    with tqdm(
        total=len(plan),
        initial=len(log),
        unit="sample",
        desc="Evaluating",
        mininterval=1.0 if sys.stderr.isatty() else 30.0,
        smoothing=0.05,
    ) as progress:
        clock = SamplingClock(options.out, device_name(source.gpus), source.gpus)
        for batch in sampler(requests):
            records = _records([(missing[index], completion) for index, completion in batch], prompts, grader)
            log.append(records)
            clock.batch(len(records))
            truncated += sum(record["finish_reason"] == "length" for record in records)
            progress.set_postfix(truncated=truncated, refresh=False)
            progress.update(len(batch))


def _records(
    responses: Sequence[tuple[PlannedSample, Completion]], prompts: Prompts, grader: Grader
) -> list[dict[str, Any]]:
    """Responses as lines of the log: their text, grade and confidence."""
    texts = [prompts.text(completion) for _, completion in responses]
    grades = grader.grade_all([(planned.question, text) for (planned, _), text in zip(responses, texts, strict=True)])
    records = []
    for (planned, completion), text, grade in zip(responses, texts, grades, strict=True):
        benchmark, question_id, mode, sample_index = planned.key
        log_probs = mean_log_probs(completion, planned.question, prompts.token_texts)
        records.append(
            {
                "benchmark": benchmark,
                "question_id": question_id,
                "mode": mode,
                "sample_index": sample_index,
                "seed": planned.seed,
                "temperature": planned.temperature,
                "text": text,
                "tokens": completion.tokens,
                "finish_reason": completion.finish_reason,
                "correct": grade.correct,
                "score": grade.score,
                "status": grade.status,
                "prediction": grade.prediction,
                "response_log_prob": log_probs.response,
                "answer_log_prob": log_probs.answer,
            }
        )
    return records

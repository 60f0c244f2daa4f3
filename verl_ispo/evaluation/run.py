"""``verl-ispo eval``: samples a checkpoint on benchmarks and grades it; a killed run resumes where it stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.grader import Grade, Grader
from verl_ispo.evaluation.manifest import FORMAT, MANIFEST_NAME, read_manifest, refuse_differences, write_manifest
from verl_ispo.evaluation.model_folder import Checkpoint, model_digest, resolve_checkpoint
from verl_ispo.evaluation.questions import Question, questions_digest, read_questions
from verl_ispo.evaluation.results import QUESTIONS_NAME, SAMPLES_NAME, load_result
from verl_ispo.evaluation.sampler import Completion
from verl_ispo.evaluation.sampler_choice import load_sampler, resolve_sampler, sampler_versions
from verl_ispo.evaluation.samples import PlannedSample, SampleLog, plan_samples
from verl_ispo.evaluation.score_summary import format_summary, summarise
from verl_ispo.process_lock import take_lock
from verl_ispo.user_error import UserError

LOG_NAME = "samples.partial.jsonl"
SUMMARY_NAME = "summary.json"
LOCK_NAME = ".lock"


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of ``verl-ispo eval``; its ``--help`` says what each is."""

    model: str
    benchmarks: tuple[Path, ...]
    out: Path
    n: int
    temperature: float
    top_p: float
    max_new_tokens: int
    context_tokens: int | None
    seed: int
    reward_function: str
    sampler: str
    tensor_parallel_size: int
    base_model: str | None
    method: str | None
    training_seed: int | None


def evaluate(options: EvaluationOptions) -> dict[str, Any]:
    """Run or resume an evaluation; returns the summary, which is also in ``summary.json``.

    In ``options.out``: ``manifest.json``, ``questions.jsonl``, ``samples.partial.jsonl`` until all samples are
    there, then ``samples.jsonl`` and ``summary.json``. On a CPU these are the same bytes however often the run was
    interrupted.

    Raises:
        UserError: for what the user can correct; what was sampled until then is kept.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; what was sampled is kept.
    """
    _check(options)
    questions = read_questions(options.benchmarks)
    grader = Grader(options.reward_function)
    grader.check_ground_truths(questions)
    sampler_name, reason = resolve_sampler(options.sampler)
    print(f"Sampler: {sampler_name} ({reason})", flush=True)
    checkpoint = resolve_checkpoint(options.model)
    prompts = _Prompts(checkpoint.folder, questions, options)
    manifest = _manifest(options, checkpoint, questions, grader, sampler_name, prompts.context_tokens)
    plan = plan_samples(questions, options.n, options.temperature, options.seed)

    with _exclusive(options.out):
        _begin_or_resume(options, manifest, questions)
        samples_path = options.out / SAMPLES_NAME
        if not samples_path.is_file():
            log = SampleLog(options.out / LOG_NAME)
            try:
                _sample(options, plan, prompts, grader, checkpoint, sampler_name, log)
                log.publish(samples_path, [planned.key for planned in plan])
            finally:
                log.close()
        (options.out / LOG_NAME).unlink(missing_ok=True)
        summary = summarise(load_result(options.out))
        write_text(options.out / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
    return summary


def run(options: EvaluationOptions) -> int:
    """The command; returns its exit status: 0, 2 for a fault that the user can correct, 130 if interrupted."""

    def work() -> None:
        print(format_summary(evaluate(options)))
        samples = options.out / SAMPLES_NAME
        print(f"95 % intervals over problems. Samples: {samples}; next: verl-ispo table {options.out}")

    kept = f"interrupted; finished samples are kept in {options.out}, and the same command resumes"
    return run_command("verl-ispo eval", work, kept)


class _Prompts:
    """Tokenized prompts, and how many tokens each response may have.

    A response ends at the end of the model's context at the latest. A prompt that fills it gets no response and counts
    as incorrect: leaving the problem out would change the benchmark.
    """

    def __init__(self, folder: Path, questions: Sequence[Question], options: EvaluationOptions) -> None:
        from transformers import AutoConfig, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        if not tokenizer.chat_template:
            raise UserError(
                f"{folder}: the tokenizer has no chat template, so prompts cannot be built; put a "
                "chat_template.jinja into that folder, the one used in training"
            )
        self._tokenizer = tokenizer
        declared = getattr(AutoConfig.from_pretrained(folder), "max_position_embeddings", None)
        if options.context_tokens is None and declared is None:
            raise UserError(f"{folder}: config.json has no max_position_embeddings; give --context-tokens")
        self.context_tokens = int(options.context_tokens or declared)
        self._max_new_tokens = options.max_new_tokens
        self._ids: dict[tuple[str, str], tuple[int, ...]] = {
            (question.benchmark, question.question_id): tuple(
                tokenizer.apply_chat_template(list(question.messages), add_generation_prompt=True, return_dict=False)
            )
            for question in questions
        }
        self._warn(questions)

    def _warn(self, questions: Sequence[Question]) -> None:
        for benchmark in dict.fromkeys(question.benchmark for question in questions):
            limits = [self.response_limit(question) for question in questions if question.benchmark == benchmark]
            context = f"the context of {self.context_tokens} tokens"
            if not any(limits):
                raise UserError(
                    f"benchmark {benchmark!r}: each of its {len(limits)} prompts fills {context}, so nothing could be "
                    "sampled. Give a model with a longer context, or --context-tokens to go beyond the declared one"
                )
            for count, words in (
                (sum(tokens == 0 for tokens in limits), f"fill {context}: they are not sampled and count as incorrect"),
                (
                    sum(0 < tokens < self._max_new_tokens for tokens in limits),
                    f"leave less than --max-new-tokens {self._max_new_tokens} of {context}",
                ),
            ):
                if count:
                    warning = f"warning: {benchmark}: {count} of {len(limits)} prompts {words}"
                    print(warning, file=sys.stderr, flush=True)

    def ids(self, question: Question) -> tuple[int, ...]:
        return self._ids[question.benchmark, question.question_id]

    def response_limit(self, question: Question) -> int:
        """Tokens that the response may have."""
        return max(0, min(self._max_new_tokens, self.context_tokens - len(self.ids(question))))

    def decode(self, completion: Completion) -> str:
        return self._tokenizer.decode(list(completion.token_ids), skip_special_tokens=True)


def _check(options: EvaluationOptions) -> None:
    if not options.benchmarks:
        raise UserError("--benchmarks: give at least one parquet file")
    for name, value, least in (
        ("--n", options.n, 0),
        ("--max-new-tokens", options.max_new_tokens, 1),
        ("--context-tokens", options.context_tokens, 2),
        ("--tensor-parallel-size", options.tensor_parallel_size, 1),
        ("--seed", options.seed, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"{name} {value}: give {least} or more")
    if not 0.0 < options.temperature < float("inf"):
        raise UserError(f"--temperature {options.temperature}: give a number above 0; greedy is always run as well")
    if not 0.0 < options.top_p <= 1.0:
        raise UserError(f"--top-p {options.top_p}: give a number above 0 and up to 1")


def _manifest(
    options: EvaluationOptions,
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    grader: Grader,
    sampler_name: str,
    context_tokens: int,
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
        "model": {"path": options.model, "checkpoint_rule": checkpoint.rule, "step": checkpoint.step},
        "options": {
            "n": options.n,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_new_tokens": options.max_new_tokens,
            "context_tokens": context_tokens,
            "seed": options.seed,
        },
        "inputs": {"model_sha256": model_digest(checkpoint.folder), "benchmarks": benchmarks},
        "sampler": {"name": sampler_name, "versions": sampler_versions(sampler_name)},
        "grader": {**grader.identity(), "verl_ispo": __version__},
    }


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
    prompts: _Prompts,
    grader: Grader,
    checkpoint: Checkpoint,
    sampler_name: str,
    log: SampleLog,
) -> None:
    """Draw and grade what the log does not have yet."""
    missing = [planned for planned in plan if planned.key not in log]
    if not missing:
        return
    if len(log):
        print(f"Resuming: {len(log)} of {len(plan)} samples are there.", flush=True)
    unsampled = [planned for planned in missing if prompts.response_limit(planned.question) == 0]
    missing = [planned for planned in missing if prompts.response_limit(planned.question) > 0]
    grades = grader.grade_all([(planned.question, "") for planned in unsampled])
    log.append(
        [_record(planned, "", 0, "prompt_too_long", grade) for planned, grade in zip(unsampled, grades, strict=True)]
    )
    if not missing:
        return
    sampler = load_sampler(sampler_name, checkpoint.folder, prompts.context_tokens, options.tensor_parallel_size)
    requests = [
        SampleRequest(
            prompt_ids=prompts.ids(planned.question),
            max_new_tokens=prompts.response_limit(planned.question),
            temperature=planned.temperature,
            top_p=options.top_p if planned.mode == "sampled" else 1.0,
            seed=planned.seed or 0,
        )
        for planned in missing
    ]
    truncated = 0
    with tqdm(
        total=len(plan),
        initial=len(log),
        unit="sample",
        desc="Evaluating",
        mininterval=1.0 if sys.stderr.isatty() else 30.0,
        smoothing=0.05,
    ) as progress:
        for batch in sampler(requests):
            texts = [prompts.decode(completion) for _, completion in batch]
            answers = [(missing[index].question, text) for (index, _), text in zip(batch, texts, strict=True)]
            records = [
                _record(missing[index], text, len(completion.token_ids), completion.finish_reason, grade)
                for (index, completion), text, grade in zip(batch, texts, grader.grade_all(answers), strict=True)
            ]
            log.append(records)
            truncated += sum(record["finish_reason"] == "length" for record in records)
            progress.set_postfix(truncated=truncated, refresh=False)
            progress.update(len(batch))


def _record(planned: PlannedSample, text: str, tokens: int, finish_reason: str, grade: Grade) -> dict[str, Any]:
    benchmark, question_id, mode, sample_index = planned.key
    return {
        "benchmark": benchmark,
        "question_id": question_id,
        "mode": mode,
        "sample_index": sample_index,
        "seed": planned.seed,
        "temperature": planned.temperature,
        "text": text,
        "tokens": tokens,
        "finish_reason": finish_reason,
        "correct": grade.correct,
        "score": grade.score,
        "status": grade.status,
        "prediction": grade.prediction,
    }

"""Scorer: it knows the data, its function exists, and prompts, scorer and ISPO agree on where the answer is."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_ispo.answers.answer_place import (
    ANSWER_LINE,
    BOXED,
    HASHES,
    Marker,
    asked_markers,
    markers_of,
    row_answer_format,
)
from verl_ispo.preflight.composition import runs_extra_forwards, setting, uses_our_grader
from verl_ispo.preflight.data_files import FILE_KEYS, readable_samples
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding

FUNCTION_KEY = "reward.custom_reward_function"
GRADER_FORMAT = f"{FUNCTION_KEY}.reward_kwargs.answer_format"
SIGNAL_FORMAT = "algorithm.ispo.answer_format"
OUR_GRADER = (
    f"{FUNCTION_KEY}.path=pkg://verl_ispo.grading.reward_function {FUNCTION_KEY}.name=compute_score grades every "
    "math set that python -m data_prep.* writes"
)


def asked_formats(messages: Any) -> set[Marker]:
    """The markers of the answer that a prompt mentions."""
    if not isinstance(messages, list):
        return set()
    text = "\n".join(str(message.get("content", "")) for message in messages if isinstance(message, Mapping))
    return asked_markers(text)


def default_scorer_knows(data_source: str) -> bool:
    """Whether verl's `default_compute_score` has a scorer for a data source, asked with an empty response."""
    from verl.utils.reward_score import default_compute_score

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            default_compute_score(data_source, "", "0")
    except NotImplementedError:
        return False
    except Exception:  # it has one, which fails on the empty response or lacks a package
        return True
    return True


def default_scorer_formats(data_source: str) -> set[Marker] | None:
    """What verl's default scorers for math look for (verl.utils.reward_score); `None` for others."""
    if data_source == "openai/gsm8k":
        return {HASHES}
    if data_source in ("lighteval/MATH", "DigitalLearningGmbH/MATH-lighteval", "HuggingFaceH4/MATH-500"):
        return {BOXED}
    if data_source in ("math_dapo", "math", "math_dapo_reasoning") or data_source.startswith("aime"):
        return {ANSWER_LINE, BOXED}
    return None


def check_scorer(config: DictConfig) -> Iterator[Finding]:
    """The reward function, the data sources, and the format that the sampled prompts ask for."""
    path = setting(config, f"{FUNCTION_KEY}.path")
    if path:
        yield from check_custom_function(str(path), setting(config, f"{FUNCTION_KEY}.name"))
    prompt_key = setting(config, "data.prompt_key", "prompt")
    ours = uses_our_grader(config)
    if ours and runs_extra_forwards(config):
        yield from _check_that_formats_agree(config)
    for key in FILE_KEYS:
        rows = [row for sample in readable_samples(config, key) for row in sample.rows]
        asked = [asked_formats(row.get(prompt_key)) for row in rows]
        sources = sorted({str(row["data_source"]) for row in rows if row.get("data_source") is not None})
        if not path:
            for source in sources:
                formats = [
                    found for found, row in zip(asked, rows, strict=True) if str(row.get("data_source")) == source
                ]
                yield from _check_default_scorer(config, key, source, formats)
        if rows and ours:
            yield from _check_answer_format(
                config, key, rows, asked, GRADER_FORMAT, "the grader would find no answer, and every score would be 0"
            )
        if rows and runs_extra_forwards(config):
            harm = "ISPO would find no answer, and IFD would be 0 throughout"
            yield from _check_answer_format(config, key, rows, asked, SIGNAL_FORMAT, harm)


def _check_default_scorer(config: DictConfig, key: str, source: str, asked: list[set[Marker]]) -> Iterator[Finding]:
    if setting(config, "reward.reward_model.enable"):
        yield Finding(NOTE, key, f"data_source {source!r} is scored by reward.reward_model, which is not checked")
        return
    if not default_scorer_knows(source):
        yield Finding(
            PROBLEM,
            key,
            f"wrong scorer: verl's default one does not know data_source {source!r} and would stop the first step. "
            f"Set {FUNCTION_KEY}.path and .name; {OUR_GRADER}",
        )
        return
    reads = default_scorer_formats(source)
    strangers = [formats for formats in asked if reads and formats and not formats & reads]
    if strangers and reads:
        yield Finding(
            PROBLEM,
            key,
            f"wrong scorer: the prompts of data_source {source!r} ask for {_listed(strangers[0])}, and verl's "
            "scorer for "
            f"it looks for {_listed(reads)}, so every answer would be wrong. {OUR_GRADER}",
        )
    else:
        yield Finding(OK, key, f"data_source {source!r} has a scorer in verl")


def _check_that_formats_agree(config: DictConfig) -> Iterator[Finding]:
    """What is graded is what ISPO scores only if both look for the answer in the same way."""
    graded, scored = (str(setting(config, key, "auto")) for key in (GRADER_FORMAT, SIGNAL_FORMAT))
    if graded != scored:
        yield Finding(
            PROBLEM,
            GRADER_FORMAT,
            f"is {graded}, and {SIGNAL_FORMAT} is {scored}: IFD would score another text than the grader grades. Set "
            f"+{GRADER_FORMAT}={scored}",
        )


def _check_answer_format(
    config: DictConfig,
    key: str,
    rows: list[Mapping[str, Any]],
    asked: list[set[Marker]],
    subject: str,
    harm: str,
) -> Iterator[Finding]:
    """The markers that the sampled prompts ask for against those that are looked for, row by row.

    Args:
        key (`str`): of the files that the rows are from.
        rows (`list[Mapping]`), asked (`list[set[Marker]]`): the rows, and what their prompts ask for.
        subject (`str`): the setting that says what is looked for.
        harm (`str`): what an unread marker would do.
    """
    chosen = str(setting(config, subject, "auto"))
    formats = [row_answer_format(row.get("extra_info"), chosen) for row in rows]
    try:
        looked_for = [set(markers_of(answer_format)) for answer_format in formats]
    except ValueError as error:
        yield Finding(PROBLEM, subject, f"in {key}: {error}; prepare the file again with python -m data_prep.*")
        return
    strangers = [
        (wanted, answer_format)
        for wanted, answer_format, found in zip(asked, formats, looked_for, strict=True)
        if wanted and not wanted & found
    ]
    if strangers:
        wanted, answer_format = strangers[0]
        remedy = "+".join(sorted(marker.name for marker in wanted))
        source = "" if answer_format == chosen else f", from extra_info.answer_format of {key}"
        plus = "+" if subject == GRADER_FORMAT else ""
        yield Finding(
            PROBLEM,
            subject,
            f"is {answer_format}{source}, but prompts in {key} ask for {_listed(wanted)}: {harm}. Set "
            f"{plus}{subject}={remedy} (answer_format=auto looks for every known marker), or prepare the prompts with "
            f"a template that asks for {_listed(markers_of(answer_format))}",
        )
    elif not any(asked):
        yield Finding(
            NOTE,
            subject,
            f"the first {len(asked)} prompts in {key} do not say how to give the answer; "
            f"{_listed(set().union(*looked_for))} would be read (python -m data_prep.* --template)",
        )
    else:
        shown = ", ".join(sorted(set(formats)))
        yield Finding(OK, subject, f"{shown}, and the prompts in {key} ask for {_listed(set().union(*asked))}")


def _listed(markers: Iterable[Marker]) -> str:
    return " or ".join(sorted(marker.description for marker in markers))


def check_custom_function(path: str, name: object) -> Iterator[Finding]:
    """That the module exists and defines the function; its source is read, not run."""
    if not name:
        yield Finding(
            PROBLEM, f"{FUNCTION_KEY}.name", "is not set; name the function in that file, often compute_score"
        )
        return
    file, fault = _module_file(path)
    if file is None:
        yield Finding(PROBLEM, f"{FUNCTION_KEY}.path", f"{path} {fault}")
        return
    try:
        module = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        yield Finding(PROBLEM, f"{FUNCTION_KEY}.path", f"{file} is not Python: {error}")
        return
    names, star = _top_level_names(module)
    if str(name) in names:
        yield Finding(OK, FUNCTION_KEY, f"{path}, function {name}")
    elif star:
        yield Finding(NOTE, f"{FUNCTION_KEY}.name", f"{file} imports *; whether that brings {name} is not checked")
    else:
        known = ", ".join(sorted(known for known in names if not known.startswith("_"))) or "nothing"
        yield Finding(PROBLEM, f"{FUNCTION_KEY}.name", f"{file} has no {name}; it defines {known}")


def _module_file(path: str) -> tuple[Path | None, str]:
    """The file that verl would load (verl.utils.import_utils.load_module), or `None` and why not."""
    if not path.startswith("pkg://"):
        file = Path(path.removeprefix("file://"))
        return (file, "") if file.is_file() else (None, f"does not exist (from {Path.cwd()}); give an absolute path")
    module = path.removeprefix("pkg://").replace("/", ".")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        return None, f"cannot be imported: {error}; install its package, or give a file"
    if spec is None or spec.origin is None:
        return None, "cannot be imported; install its package into this environment, or give a file"
    return Path(spec.origin), ""


def _top_level_names(module: ast.Module) -> tuple[set[str], bool]:
    """Names that a module binds, also under if, try and with, and whether it imports ``*``."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(module.body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in statement.names}
        elif isinstance(statement, ast.Assign):
            names |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        else:
            waiting += ast.iter_child_nodes(statement)
    return names - {"*"}, "*" in names

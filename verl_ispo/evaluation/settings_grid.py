"""``verl-ispo eval --vary-...``: one model at several templates, temperatures, top-p and lengths, one at a time.

::

    OUT/settings.json     which settings there are, and which of them is the one that was given
    OUT/as_given/         an evaluation like any other, by the options without the variations
    OUT/temperature-1/    and one for each variation: template-NAME, temperature-T, top_p-P, max_new_tokens-N

The model is loaded once. Each folder resumes by itself, and further variations can be added later.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.prompt_templates import load_template
from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.evaluation.evaluation_options import EvaluationOptions, check_options
from verl_ispo.evaluation.manifest import MANIFEST_NAME
from verl_ispo.evaluation.prompt_template import template_of, with_template
from verl_ispo.evaluation.questions import read_questions
from verl_ispo.evaluation.response_source import ResponseSource
from verl_ispo.evaluation.results import SETTINGS_NAME
from verl_ispo.evaluation.run import evaluate
from verl_ispo.evaluation.sampler import Sampler
from verl_ispo.evaluation.score_summary import format_summary
from verl_ispo.user_error import UserError

AS_GIVEN = "as_given"
VARIED = ("template", "temperature", "top_p", "max_new_tokens")
"""What can be varied: fields of `EvaluationOptions`, in the order of the table."""


@dataclass(frozen=True)
class Setting:
    """One evaluation of the grid.

    Attributes:
        folder: its name in OUT.
        varied: one of `VARIED`; `None` for the one that was given.
        options: of its evaluation.
    """

    folder: str
    varied: str | None
    options: EvaluationOptions


def plan_settings(options: EvaluationOptions, variations: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """The setting that was given, then each variation of one of its values; what equals it is left out.

    Args:
        options (`EvaluationOptions`): as given; ``out`` is the folder of all of them.
        variations (`Mapping[str, Sequence]`): values by the names of `VARIED`.

    Raises:
        UserError: if a value cannot be evaluated, or two templates have one name.
    """
    questions = read_questions(options.benchmarks)
    found = {AS_GIVEN: Setting(AS_GIVEN, None, dataclasses.replace(options, out=options.out / AS_GIVEN))}
    base = questions if options.template is None else with_template(questions, load_template(options.template))
    given = [list(question.messages) for question in base]
    for name in VARIED:
        for value in dict.fromkeys(variations.get(name, ())):
            if name == "template":
                template = load_template(str(value))
                shown = template.name
                if [list(question.messages) for question in with_template(questions, template)] == given:
                    print(f"--vary-template {value}: the prompts as given are these, so it is not another setting")
                    continue
            elif value == getattr(options, name):
                continue
            else:
                shown = f"{value:g}" if isinstance(value, float) else str(value)
            folder = f"{name}-{shown}"
            if folder in found:
                raise UserError(f"--vary-{name.replace('_', '-')} {value}: {folder} is there already; rename one file")
            changed = dataclasses.replace(options, out=options.out / folder, **{name: value})
            check_options(changed)
            found[folder] = Setting(folder, name, changed)
    return list(found.values())


def run(options: EvaluationOptions, variations: Mapping[str, Sequence[Any]]) -> int:
    """The command; returns its exit status, as `verl_ispo.evaluation.run.run`."""

    def work() -> None:
        evaluate_settings(options, variations)
        print(f"Next: verl-ispo table --sensitivity {options.out} --out tables")

    kept = f"interrupted; finished samples are kept in {options.out}, and the same command resumes"
    return run_command("verl-ispo eval", work, kept)


def evaluate_settings(options: EvaluationOptions, variations: Mapping[str, Sequence[Any]]) -> None:
    """Run or resume the evaluations of all settings.

    Raises:
        UserError: see `plan_settings` and `verl_ispo.evaluation.run.evaluate`.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; what was sampled is kept.
    """
    check_options(options)
    if (options.out / MANIFEST_NAME).exists():
        raise UserError(f"--out {options.out}: holds a single evaluation; give another folder for several settings")
    settings = plan_settings(options, variations)
    loaded: list[Sampler] = []

    def load_once(source: ResponseSource) -> Sampler:
        if not loaded:
            loaded.append(source.load())
        return loaded[0]

    for number, setting in enumerate(settings, start=1):
        print(f"Setting {number} of {len(settings)}: {setting.folder}", flush=True)
        new = not (setting.options.out / MANIFEST_NAME).exists()
        # all settings are one method; a label that is not given at a later time stays as it is
        method = options.method or (options.out.resolve().name if new else None)
        print(format_summary(evaluate(dataclasses.replace(setting.options, method=method), load_once)), flush=True)
        if setting.varied is None:
            # noted only now, since other options than before are refused by its evaluation
            _note(options, settings)


def _note(options: EvaluationOptions, settings: Sequence[Setting]) -> None:
    """Write which settings there are; those of earlier commands stay."""
    path = options.out / SETTINGS_NAME
    noted = read_settings(options.out)["settings"] if path.exists() else {}
    if options.template is None:
        template = template_of(read_questions(options.benchmarks))
    else:
        template = load_template(options.template).name
    content = {"template": template, "settings": {**noted, **{setting.folder: setting.varied for setting in settings}}}
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_settings(folder: Path) -> dict[str, Any]:
    """What a folder of several settings holds.

    Returns:
        `dict`: ``template``, the name of the template as given, `None` where it has none; ``settings``, folder to what
        is varied there.

    Raises:
        UserError: if it is no such folder.
    """
    path = folder / SETTINGS_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        settings, template = found["settings"], found["template"]
        if set(settings.values()) - {None, *VARIED} or settings[AS_GIVEN] is not None:
            raise ValueError("unknown settings")
        if any(Path(name).name != name for name in settings):
            raise ValueError("a folder elsewhere")
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no {SETTINGS_NAME}; give the --out of verl-ispo eval with --vary-...") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); repeat the verl-ispo eval command that wrote it") from error
    return {"template": template, "settings": settings}

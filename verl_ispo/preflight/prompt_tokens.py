"""Prompts as the training reads them: with the model's own tokenizer and chat template, and what their lengths leave.

The rollout renders a prompt through verl's `ContinuousTokenBuilder`, which has demands of its own, and the data set's
length filter counts the tokens of the same template. A large file is measured on rows that are spread evenly over it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_ispo.preflight.composition import setting
from verl_ispo.preflight.data_files import FILE_KEYS, given_files, readable_files
from verl_ispo.preflight.data_rows import bar, column_batches, column_names, count_rows, named_rows, prompt_fault
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.model_shape import ModelShape, is_hub_id
from verl_ispo.preflight.turn_ends import check_pad_token, check_turn_ends

MODEL = "actor_rollout_ref.model"
TOKENIZER_PATH, TEMPLATE = f"{MODEL}.tokenizer_path", f"{MODEL}.custom_chat_template"
LIMIT, FILTER = "data.max_prompt_length", "data.filter_overlong_prompts"
MEASURED_ROWS = 2000
"""Of each key's files; more of them are not measured, but estimated from these."""
PLAIN_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
TEMPLATE_REMEDY = (
    "Put the chat_template.jinja of the model's chat version into the model's folder (for a model of the hub: into a "
    f"folder of its files), or set a template: '{TEMPLATE}=\"{PLAIN_TEMPLATE}\"' gives the text alone"
)


TAKEN_BY_VERL = ("tokenize", "return_dict", "return_tensors")


class TokenizerFault(Exception):
    """The prompts cannot be rendered with this model; the message has reason and remedy."""


@dataclass(frozen=True)
class MeasuredPrompts:
    """Prompts of one key's files in tokens.

    Attributes:
        rows: of all files, after ``data.*_max_samples``.
        lengths: tokens of the measured prompts that the template renders.
        faults: the rows that it does not render, as one sentence per kind.
        unrendered: how many those are.
        largest_id: largest token id of all measured prompts.
    """

    rows: int
    lengths: tuple[int, ...]
    faults: tuple[str, ...]
    unrendered: int
    largest_id: int

    @property
    def measured(self) -> int:
        """Rows that were looked at."""
        return len(self.lengths) + self.unrendered

    @property
    def is_exact(self) -> bool:
        """Whether all rows were looked at."""
        return self.measured >= self.rows

    def fitting(self, limit: int) -> int:
        """Measured prompts of at most `limit` tokens."""
        return sum(length <= limit for length in self.lengths)

    def kept(self, limit: int) -> int:
        """Rows of all files that verl's length filter leaves, in proportion where not all were measured."""
        return self.fitting(limit) * self.rows // self.measured if self.measured else 0


@dataclass(frozen=True)
class PromptReading:
    """What was found in the prompts.

    Attributes:
        findings: for the report.
        kept_rows: training rows that verl's length filter leaves, `None` where they were not measured.
    """

    findings: tuple[Finding, ...]
    kept_rows: int | None = None


def tokenizer_path(config: DictConfig) -> str:
    """Where verl loads the tokenizer from."""
    return str(setting(config, TOKENIZER_PATH) or setting(config, f"{MODEL}.path"))


def has_tokenizer_here(path: str) -> bool:
    """Whether it can be loaded without a download; a folder without a config.json is no model, and found out first."""
    if Path(os.path.expanduser(path)).is_dir():
        return any(Path(os.path.expanduser(path)).glob("*.json"))
    if not is_hub_id(path):
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(path, "tokenizer_config.json"), str)


def prompt_renderer(config: DictConfig, shape: ModelShape | None) -> Any:
    """verl's builder of prompts for this model and these settings.

    Raises:
        TokenizerFault: tokenizer or template do not give one.
    """
    from verl.utils import hf_tokenizer
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    path = tokenizer_path(config)
    try:
        tokenizer = hf_tokenizer(
            str(Path(os.path.expanduser(path))) if Path(os.path.expanduser(path)).is_dir() else path,
            trust_remote_code=bool(setting(config, f"{MODEL}.trust_remote_code", False)),
            local_files_only=True,
        )
    except Exception as error:  # transformers has no single kind of error for a folder without a tokenizer
        raise TokenizerFault(
            f"{path} has no tokenizer that transformers can load ({_short(error)}). Copy the tokenizer's files there "
            f"(save_pretrained), or set {TOKENIZER_PATH}=FOLDER"
        ) from error
    template = setting(config, TEMPLATE)
    if template is not None:
        tokenizer.chat_template = str(template)
    if not tokenizer.encode("What is 6 times 7?", add_special_tokens=False):
        raise TokenizerFault(
            f"the tokenizer of {path} is empty: it makes no token of a text, as transformers' classes do for a folder "
            "without tokenizer files. Copy the tokenizer's files there (tokenizer.json, tokenizer_config.json), or set "
            f"{TOKENIZER_PATH}=FOLDER"
        )
    if not tokenizer.chat_template:
        raise TokenizerFault(
            f"the tokenizer of {path} has no chat template, so no prompt can be rendered: every rollout would fail, or "
            f"the length filter would leave out every row. {TEMPLATE_REMEDY}"
        )
    kwargs = setting(config, "data.apply_chat_template_kwargs", {})
    try:
        return create_continuous_token_builder(
            tokenizer,
            hf_model_type=None if shape is None else shape.model_type,
            chat_template_kwargs=OmegaConf.to_container(kwargs) if OmegaConf.is_config(kwargs) else dict(kwargs),
        )
    except Exception as error:  # whatever verl's builders assert of a tokenizer
        raise TokenizerFault(
            f"verl cannot build the prompts of {path}: {_short(error)}. Use the tokenizer that the model was published "
            f"with ({TOKENIZER_PATH}=FOLDER)"
        ) from error


def measured_prompts(config: DictConfig, key: str, renderer: Any) -> MeasuredPrompts | None:
    """Prompts under a key, measured; `None` where its files cannot be read here.

    Args:
        config (`DictConfig`): the composed config.
        key (`str`): one of `FILE_KEYS`.
        renderer (`Any`): of `prompt_renderer`.
    """
    prompt_key = str(setting(config, "data.prompt_key", "prompt"))
    files = [path for _, path in readable_files(config, key)]
    if not files or len(files) < len(given_files(config, key)) or setting(config, "data.custom_cls.path"):
        return None
    if any(prompt_key not in column_names(path) for path in files):
        return None
    total = sum(map(count_rows, files))
    limit = setting(config, key.replace("_files", "_max_samples"), -1)
    rows = min(total, limit) if limit > 0 else total
    # with data.shuffle verl draws data.train_max_samples rows from all files, else it takes the first ones
    readable = total if setting(config, "data.shuffle", False) else rows
    measured = min(rows, MEASURED_ROWS)
    wanted = iter({index * readable // measured: None for index in range(measured)})
    lengths: list[int] = []
    faults: dict[str, list[int]] = {}
    largest = 0
    with bar(measured, f"reading the prompts of {key}") as progress:
        for at, messages in _picked(files, prompt_key, wanted):
            if prompt_fault(messages) is not None:
                continue  # `check_data` reports it
            progress.update()
            try:
                ids = rendered(renderer, messages)
            except Exception as error:  # whatever the template raises
                faults.setdefault(_short(error), []).append(at)
                continue
            lengths.append(len(ids))
            largest = max(largest, *ids) if ids else largest
    sentences = tuple(f"{named_rows(at, measured)}: {reason}" for reason, at in faults.items())
    return MeasuredPrompts(rows, tuple(lengths), sentences, sum(map(len, faults.values())), largest)


def rendered(renderer: Any, messages: list[dict[str, Any]]) -> list[int]:
    """A prompt's tokens, as verl's length filter has them.

    The rollout's are the same ones, but where the template raises: it then asks once more with an empty user message in
    front, and trains on what comes of that.
    """
    from verl.utils.tokenizer import normalize_token_ids

    kwargs = {name: value for name, value in renderer.chat_template_kwargs.items() if name not in TAKEN_BY_VERL}
    return normalize_token_ids(
        renderer.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, **kwargs)
    )


def _picked(files: list[Path], column: str, wanted: Iterator[int]) -> Iterator[tuple[int, Any]]:
    """The rows with these numbers, which count through all files, and their values."""
    at, first = next(wanted, None), 0
    for path in files:
        for batch in column_batches(path, [column]):
            values = batch[column]
            while at is not None and at < first + len(values):
                yield at, values[at - first]
                at = next(wanted, None)
            first += len(values)
            if at is None:
                return


def read_prompts(config: DictConfig, shape: ModelShape | None) -> PromptReading:
    """Tokenizer, chat template and length of the prompts of both keys.

    Args:
        config (`DictConfig`): the composed config.
        shape (`ModelShape`, *optional*): of the model.
    """
    path = tokenizer_path(config)
    if not has_tokenizer_here(path):
        text = f"the tokenizer of {path} is not on this machine, so no prompt is rendered; give a folder to check it"
        return PromptReading((Finding(NOTE, f"{MODEL}.path", text),))
    if shape is not None and shape.is_multimodal:
        text = f"{path} takes more than text, so no prompt is rendered"
        return PromptReading((Finding(NOTE, f"{MODEL}.path", text),))
    try:
        renderer = prompt_renderer(config, shape)
    except TokenizerFault as fault:
        return PromptReading((Finding(PROBLEM, f"{MODEL}.path", str(fault)),))
    findings: list[Finding] = [
        *check_turn_ends(renderer.tokenizer, _generation_config(config), path),
        *check_pad_token(path),
    ]
    kept = None
    for key in ("data.tool_config_path", "data.function_tool_path"):
        if setting(config, key):
            text = f"is {setting(config, key)}: the prompts are counted without the tools, which make them longer"
            findings.append(Finding(NOTE, key, text))
    for key in FILE_KEYS:
        prompts = measured_prompts(config, key, renderer)
        if prompts is not None and prompts.measured:
            findings += [*_check_rendered(key, prompts, shape), *_check_lengths(config, key, prompts)]
            if key == FILE_KEYS[0] and setting(config, FILTER):
                kept = prompts.kept(setting(config, LIMIT))
    return PromptReading(tuple(dict.fromkeys(findings)), kept)


def _generation_config(config: DictConfig) -> Any:
    """The model's, where it has one here."""
    from transformers import GenerationConfig

    folder = os.path.expanduser(str(setting(config, f"{MODEL}.path")))
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        return None


def _check_rendered(key: str, prompts: MeasuredPrompts, shape: ModelShape | None) -> Iterator[Finding]:
    for fault in prompts.faults:
        yield Finding(
            PROBLEM,
            key,
            f"{fault} (said by the chat template). {FILTER}=true leaves such a row out without an error; else its "
            "rollout gets another prompt, with an empty user message in front, or fails. Correct the messages, or set "
            f"another {TEMPLATE}",
        )
    if shape is not None and prompts.largest_id >= shape.vocab_size:
        yield Finding(
            PROBLEM,
            f"{MODEL}.path",
            f"the tokenizer gives token {prompts.largest_id}, and the model has {shape.vocab_size} tokens "
            "(vocab_size in its config.json), so the first forward would fail; use the tokenizer of this model, or "
            "enlarge its embeddings",
        )


def _check_lengths(config: DictConfig, key: str, prompts: MeasuredPrompts) -> Iterator[Finding]:
    """How many prompts are within the limit, and what becomes of the others."""
    if not prompts.lengths:
        return
    limit, filters = setting(config, LIMIT), bool(setting(config, FILTER))
    fitting, longest = prompts.fitting(limit), max(prompts.lengths)
    which = "rows" if prompts.is_exact else f"rows measured, of {prompts.rows}"
    if fitting == len(prompts.lengths):
        yield Finding(OK, LIMIT, f"is {limit}; the longest prompt of {key} has {longest} tokens ({fitting} {which})")
        return
    over = prompts.measured - fitting
    share = f"{over} of {prompts.measured} {which} in {key} ({over / prompts.measured:.1%}) have longer prompts, up to"
    text = f"is {limit}, and {share} {longest} tokens"
    batch = setting(config, "data.train_batch_size") if key == FILE_KEYS[0] else 1
    remedy = f"set {LIMIT}={longest} to keep all"
    if filters and prompts.kept(limit) < batch:
        left = f"{prompts.kept(limit)} left" if prompts.is_exact else f"about {prompts.kept(limit)} left"
        less = f", less than data.train_batch_size={batch}, so an epoch has no step" if batch > 1 else ""
        yield Finding(PROBLEM, LIMIT, f"{text}: {FILTER}=true leaves them out, with {left}{less}; {remedy}")
    elif filters:
        yield Finding(NOTE, LIMIT, f"{text}; {FILTER}=true leaves them out ({remedy})")
    elif fitting == 0:
        yield Finding(PROBLEM, LIMIT, f"{text}: not one prompt would be read whole; {remedy}")
    else:
        yield Finding(NOTE, LIMIT, f"{text}, which lose their beginning; {remedy}, or {FILTER}=true to leave them out")


def _short(error: Exception) -> str:
    """The first line of an error, cut."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

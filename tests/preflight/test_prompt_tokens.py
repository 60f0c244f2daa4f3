"""Prompts as the training reads them: what the tokenizer, the template and the length filter make of them.

verl's data set and its builder of prompts are the reference. Not exercised: models with images, tokenizers of the hub.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from verl.utils import hf_tokenizer
from verl.utils.dataset.rl_dataset import RLHFDataset

from tests.examples import examples
from tests.preflight.set_ups import BOXED_PROMPT, math_row, problems, with_settings, write_model, write_rows
from verl_ispo.preflight import prompt_tokens
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM
from verl_ispo.preflight.model_shape import read_model_shape
from verl_ispo.preflight.override_grammar import check_overrides
from verl_ispo.preflight.prompt_tokens import PLAIN_TEMPLATE, PromptReading, read_prompts

MODEL, LIMIT, TRAIN = "actor_rollout_ref.model.path", "data.max_prompt_length", "data.train_files"


def asking(times: int) -> dict:
    """A row whose prompt has 16 words' worth of tokens that many times."""
    return math_row(prompt=[{"role": "user", "content": " ".join([BOXED_PROMPT] * times)}])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def config_of(model: Path, rows: list[dict], *more: str) -> DictConfig:
    file = write_rows(model.parent / "rows.parquet", rows)
    return with_settings(
        (f"{MODEL}={model}", f"{TRAIN}={file}", f"data.val_files={file}", "data.train_batch_size=2", *more)
    )


def reading(config: DictConfig) -> PromptReading:
    return read_prompts(config, read_model_shape(config))


def test_a_model_without_a_chat_template_is_a_problem_whose_remedies_help(model: Path) -> None:
    """No prompt can be rendered: verl's filter then drops every row, and without it every rollout of step 1 fails."""
    (model / "chat_template.jinja").unlink()
    config = config_of(model, [asking(1)] * 4)
    found = problems(reading(config).findings)
    assert "no chat template" in found[MODEL]
    (override,) = [word for word in shlex.split(found[MODEL]) if word.startswith(prompt_tokens.TEMPLATE)]
    check_overrides([override])
    OmegaConf.update(config, prompt_tokens.TEMPLATE, override.split("=", 1)[1].strip('"'))
    assert problems(reading(config).findings) == {}
    OmegaConf.update(config, prompt_tokens.TEMPLATE, None)
    (model / "chat_template.jinja").write_text(PLAIN_TEMPLATE)
    assert problems(reading(config).findings) == {}


def test_a_folder_without_tokenizer_files_is_a_problem(model: Path) -> None:
    """transformers makes an empty tokenizer for it, in which every prompt has no token at all."""
    for file in model.glob("tokenizer*"):
        file.unlink()
    found = problems(reading(config_of(model, [asking(1)] * 4)).findings)
    assert "is empty" in found[MODEL]
    assert "tokenizer_path=FOLDER" in found[MODEL]


def test_a_tokenizer_of_its_own_is_read_where_the_config_says(model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other")
    for file in (*model.glob("tokenizer*"), model / "chat_template.jinja"):
        file.unlink()
    config = config_of(model, [asking(1)] * 4, f"{prompt_tokens.TOKENIZER_PATH}={other}")
    assert problems(reading(config).findings) == {}


def test_a_tokenizer_with_more_tokens_than_the_model(model: Path) -> None:
    """The first forward would index past the embedding."""
    config = config_of(write_model(model, vocab_size=32), [asking(1)] * 4)
    found = problems(reading(config).findings)
    assert "the model has 32 tokens" in found[MODEL]


def test_rows_that_the_template_refuses_are_counted(model: Path) -> None:
    """Some templates take no system message, or only roles that alternate; such rows vanish or stop a step."""
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    refused = math_row(prompt=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}])
    findings = reading(config_of(model, [asking(1), refused, asking(1), refused])).findings
    text = problems(findings)[TRAIN]
    assert "rows 1, 3" in text
    assert "no system role here" in text


@pytest.mark.parametrize(
    ("filters", "lengths", "batch", "level", "named"),
    [
        (True, [1] * 6, 2, OK, ("6 rows",)),
        (True, [1, 1, 1, 9], 2, NOTE, ("1 of 4", "25.0%", "leaves them out")),
        (True, [1, 9, 9, 9], 2, PROBLEM, ("3 of 4", "1 left", "train_batch_size=2", "max_prompt_length=")),
        (True, [9] * 4, 2, PROBLEM, ("4 of 4", "0 left")),
        (False, [1, 1, 1, 9], 2, NOTE, ("1 of 4", "lose their beginning")),
        (False, [9] * 4, 2, PROBLEM, ("not one prompt would be read whole",)),
    ],
)
def test_what_the_length_limit_leaves(
    model: Path, filters: bool, lengths: list[int], batch: int, level: str, named: tuple[str, ...]
) -> None:
    config = config_of(model, [asking(times) for times in lengths], f"{LIMIT}=40", f"{prompt_tokens.FILTER}={filters}")
    OmegaConf.update(config, "data.train_batch_size", batch)
    (finding,) = [finding for finding in reading(config).findings if finding.subject == LIMIT and TRAIN in finding.text]
    assert finding.level == level, finding.text
    for part in named:
        assert part in finding.text
    if level == PROBLEM:
        longer = int(finding.text.rsplit("max_prompt_length=", 1)[1].split()[0])
        OmegaConf.update(config, LIMIT, longer)
        assert problems(reading(config).findings) == {}


@pytest.fixture(scope="module")
def six_lengths(tmp_path_factory: pytest.TempPathFactory) -> tuple[DictConfig, list[int]]:
    """A config whose file has prompts of six lengths, and those lengths by the tokenizer alone."""
    model = write_model(tmp_path_factory.mktemp("kept") / "model")
    rows = [asking(times) for times in (1, 2, 3, 4, 5, 6)]
    tokenizer = hf_tokenizer(str(model))
    lengths = [
        len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]) for row in rows
    ]
    return config_of(model, rows, f"{prompt_tokens.FILTER}=true"), lengths


@settings(max_examples=examples(15), deadline=None)
@given(limit=st.integers(5, 120), chosen=st.integers(-1, 8))
def test_as_many_rows_are_kept_as_fit(six_lengths: tuple[DictConfig, list[int]], limit: int, chosen: int) -> None:
    """Whatever the limit is, and however many samples are taken."""
    config, lengths = six_lengths
    for key, value in ((LIMIT, limit), ("data.train_max_samples", chosen), ("data.shuffle", False)):
        OmegaConf.update(config, key, value)
    taken = lengths[:chosen] if chosen > 0 else lengths
    assert reading(config).kept_rows == sum(length <= limit for length in taken)


def test_verls_own_data_set_keeps_as_many(
    six_lengths: tuple[DictConfig, list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, lengths = six_lengths
    more = ("data.filter_overlong_prompts_workers=1", "data.train_max_samples=-1")
    config = with_settings([f"{LIMIT}={lengths[3]}", *more], config)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    tokenizer = hf_tokenizer(config.actor_rollout_ref.model.path)
    assert len(RLHFDataset(config.data.train_files, tokenizer, config.data)) == reading(config).kept_rows == 4


def test_a_large_file_is_measured_on_rows_spread_over_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows of a file that is sorted by length say nothing about the others."""
    monkeypatch.setattr(prompt_tokens, "MEASURED_ROWS", 50)
    rows = [asking(1)] * 600 + [asking(9)] * 400
    found = reading(config_of(model, rows, f"{LIMIT}=40", f"{prompt_tokens.FILTER}=true"))
    assert found.kept_rows == 600
    (note,) = [finding for finding in found.findings if finding.level == NOTE and TRAIN in finding.text]
    assert "20 of 50 rows measured, of 1000" in note.text


def test_a_tokenizer_that_is_not_here_is_a_note() -> None:
    (finding,) = reading(with_settings([f"{MODEL}=somebody/some-model"])).findings
    assert finding.level == NOTE
    assert "not on this machine" in finding.text

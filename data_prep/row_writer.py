"""Writes problems as rows, and the data card of what was written."""

from __future__ import annotations

import contextlib
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep.atomic_output import OutputFiles
from data_prep.data_card import card_json, card_markdown, length_summary, make_card
from data_prep.prompt_lengths import PromptMeter
from data_prep.prompt_templates import PromptTemplate
from data_prep.schema import Problem, output_rows, output_schema
from data_prep.sources import file_sha256


class RowWriter:
    """The parquet of one output while it grows; a context manager, so that a failure leaves no open writer behind.

    Args:
        output (`OutputFiles`): where to write.
        data_source (`str`), split (`str`), template (`PromptTemplate`), log_base (`str`): of every row.
        meter (`PromptMeter`, *optional*): counts the prompts' tokens for the data card.
        max_prompt_tokens (`int`, *optional*): longer prompts are not written.
        kept_columns (`Sequence[str]`, *optional*): columns beside `data_prep.schema.OUTPUT_SCHEMA`'s.
    """

    def __init__(
        self,
        output: OutputFiles,
        data_source: str,
        split: str,
        template: PromptTemplate,
        log_base: str = "e",
        meter: PromptMeter | None = None,
        max_prompt_tokens: int | None = None,
        kept_columns: Sequence[str] = (),
    ) -> None:
        self.output = output
        self.data_source = data_source
        self.split = split
        self.template = template
        self.log_base = log_base
        self.meter = meter
        self.max_prompt_tokens = max_prompt_tokens
        self.kept_columns = kept_columns
        self.rows = 0
        self.answer_types: Counter[str] = Counter()
        self._chars = array("q")
        self._tokens = array("q")
        self._file = output.create("parquet")
        self._writer = pq.ParquetWriter(self._file, output_schema(kept_columns), compression="zstd")

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        # After a failure the file is discarded, and on a full disk closing fails again.
        with contextlib.suppress(OSError):
            self._writer.close()

    def write(self, problems: Sequence[Problem]) -> list[Problem]:
        """Appends problems as rows; returns those that were left out as too long."""
        too_long = []
        if self.meter is not None:
            counts = self.meter.token_counts([self.template.render(problem.question) for problem in problems])
            limit = self.max_prompt_tokens or max(counts, default=0)
            too_long = [problem for problem, count in zip(problems, counts, strict=True) if count > limit]
            problems = [problem for problem, count in zip(problems, counts, strict=True) if count <= limit]
            self._tokens.extend(count for count in counts if count <= limit)
        if problems:
            rows = output_rows(
                problems, self.data_source, self.split, self.template, self.log_base, self.rows, self.kept_columns
            )
            self._writer.write_batch(rows)
        self.rows += len(problems)
        self.answer_types.update(problem.truth.answer_type for problem in problems)
        self._chars.extend(len(problem.question) for problem in problems)
        return too_long

    def publish(
        self,
        inputs: list[dict[str, Any]],
        rows_sha256: str,
        counts: dict[str, int],
        options: dict[str, Any],
        notes: list[str],
        details: dict[str, Any],
    ) -> Path:
        """Completes the parquet, writes the card beside it, and gives all files their names. See `make_card`."""
        self._writer.close()
        self._file.flush()
        written = self.output.temporary("parquet")
        described = {
            "file": self.output.final("parquet").name,
            "rows": self.rows,
            "bytes": written.stat().st_size,
            "sha256": file_sha256(written),
            "data_source": self.data_source,
            "split": self.split,
            "template": self.template.name,
            "answer_format": self.template.answer_format,
            "log_base": self.log_base,
        }
        if self.template.sha256:
            described["template_sha256"] = self.template.sha256
        if self.template.shots:
            described |= {"shots": self.template.shots, "shots_sha256": self.template.shots_sha256}
        lengths = {"question_chars": length_summary(self._chars), "prompt_tokens": length_summary(self._tokens)}
        card = make_card(
            self.output.name,
            described,
            inputs,
            rows_sha256,
            counts,
            self.answer_types,
            lengths,
            options,
            notes,
            details,
        )
        self.output.write_text("card.json", card_json(card))
        self.output.write_text("card.md", card_markdown(card))
        self.output.publish()
        return self.output.final("parquet")

"""DAPO-Math-17k (arXiv 2503.14476): 1.79 million rows as published: 17 thousand problems, each about 100 times."""

from __future__ import annotations

from data_prep.preparation_command import TrainingSource, run_training_set

SOURCE = TrainingSource(
    name="dapo_math",
    title="Prepare DAPO-Math-17k for verl: unwraps questions, removes duplicates, conflicts and benchmark questions. "
    "Writes dapo_math.parquet, a data card, and lists of dropped rows and near duplicates.",
    hub_id="BytedTsinghua-SIA/DAPO-Math-17k",
)

if __name__ == "__main__":
    raise SystemExit(run_training_set(SOURCE))

"""Any local file with a question and an answer column, as a training set."""

from __future__ import annotations

from data_prep.preparation_command import TrainingSource, run_training_set

SOURCE = TrainingSource(
    name=None,
    title="Prepare any local problems with answers for verl: removes duplicates, conflicts, uncheckable answers and "
    "benchmark questions. Writes NAME.parquet, a data card, and lists of dropped rows and near duplicates.",
)

if __name__ == "__main__":
    raise SystemExit(run_training_set(SOURCE))

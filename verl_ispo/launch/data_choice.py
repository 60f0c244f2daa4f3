"""The files to train and to validate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.benchmark_names import PAPER_BENCHMARKS
from verl_ispo.user_error import UserError

TRAINING_SET = "dapo_math.parquet"
BENCHMARKS = tuple(f"{name}.parquet" for name in PAPER_BENCHMARKS)
"""The paper's five, as data_prep writes them."""


@dataclass(frozen=True)
class DataFiles:
    """Absolute paths of parquet files with verl's columns."""

    train: tuple[Path, ...]
    validation: tuple[Path, ...]


def choose_data(
    folder: Path | None, train_files: Sequence[Path] = (), validation_files: Sequence[Path] = ()
) -> DataFiles:
    """The given files, else those of a folder.

    Args:
        folder (`Path`, *optional*): of data_prep (dapo_math.parquet and the five benchmarks), or with train.parquet and
            heldout.parquet.
        train_files, validation_files (`Sequence[Path]`, *optional*): win over the folder's.

    Raises:
        UserError: if there is nothing to train or to validate on.
    """
    train, validation = list(train_files), list(validation_files)
    if folder is not None:
        is_plain = (folder / "train.parquet").exists() and not (folder / TRAINING_SET).exists()
        train = train or [folder / ("train.parquet" if is_plain else TRAINING_SET)]
        validation = validation or [folder / name for name in (["heldout.parquet"] if is_plain else BENCHMARKS)]
    if not train or not validation:
        raise UserError(
            "no data: set DATA (--data) to a folder of data_prep (python -m data_prep.dapo_math --local_save_dir "
            "FOLDER, and the benchmarks), or TRAIN_FILES (--train-files) and VAL_FILES (--val-files)"
        )
    return DataFiles(tuple(path.resolve() for path in train), tuple(path.resolve() for path in validation))


def check_files_exist(files: DataFiles) -> None:
    """Refuse to start without one of them.

    Raises:
        UserError: names the first that is missing.
    """
    for file in (*files.train, *files.validation):
        if not file.exists():
            raise UserError(
                f"{file} does not exist; python -m data_prep.<set> --local_save_dir {file.parent} writes it"
            )

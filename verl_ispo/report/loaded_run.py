"""One run as the report sees it: metrics, config, versions and dump, found by the layout of docs/report.md.

::

    RUN/metrics*.jsonl                 verl's file logger, one file per attempt
    RUN/**/events.out.tfevents.*       tensorboard's instead, where there is no metrics*.jsonl
    RUN/.hydra/config.yaml             Hydra's snapshot (hydra.run.dir=RUN), used where the dump has no config
    RUN/changes.jsonl                  where the run went on with other settings (verl-ispo train --change)
    RUN/dump/                          trainer.v1.ispo.dump_dir=RUN/dump, see verl_ispo.runs.rollout_dump.format
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from verl_ispo.runs.metric_log import MetricLog, read_metric_log
from verl_ispo.user_error import UserError

CONFIG_SNAPSHOTS = (".hydra/config.yaml", "config.yaml")
DUMP_FOLDER = "dump"
CHANGES_FILE = "changes.jsonl"
MAX_CHANGED_KEYS = 8


@dataclass(frozen=True)
class Run:
    """A run with a name that no other run of the report has.

    Attributes:
        name: as shown.
        path: folder or file that was given.
        log: metrics.
        config: dotted key to value, empty where no snapshot was found.
        config_source: the file it was read from, `None` where there is none.
        versions: package to version.
        seeds: dotted key to seed.
        dump: folder of the rollout dump, `None` where there is none.
        gaps: sentences on what is missing or changed, for the page.
        changed_steps: steps after which it went on with other settings.
    """

    name: str
    path: Path
    log: MetricLog
    config: Mapping[str, Any] = field(default_factory=dict)
    config_source: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, Any] = field(default_factory=dict)
    dump: Path | None = None
    gaps: tuple[str, ...] = ()
    changed_steps: tuple[int, ...] = ()


def load_runs(arguments: Sequence[str]) -> list[Run]:
    """The runs of a command line, each ``PATH`` or ``NAME=PATH``.

    Raises:
        UserError: a path that does not exist or holds no log, or two runs with the same name.
    """
    named: dict[str, Path] = {}
    for argument in arguments:
        name, path = _name_and_path(argument)
        if name in named:
            raise UserError(
                f"two runs are called {name!r}: {named[name]} and {path}. Give each its own name, for example "
                f"{name}-1={named[name]} {name}-2={path}"
            )
        named[name] = path
    return [load_run(name, path) for name, path in named.items()]


def load_run(name: str, path: Path) -> Run:
    """One run from its folder, or from only a metrics file.

    Raises:
        UserError: no log.
    """
    log = read_metric_log(path)
    gaps = list(log.gaps)
    if path.is_file():
        gaps.append("only a metrics file was given: config, versions, seeds and rollouts are not known")
        return Run(name, path, log, gaps=tuple(gaps))
    dump = path / DUMP_FOLDER if (path / DUMP_FOLDER).is_dir() else None
    description: Mapping[str, Any] = {}
    if dump is None:
        gaps.append(
            f"no rollout dump ({DUMP_FOLDER}/): no rollout view and no figure 6; train with "
            f"trainer.v1.ispo.dump_dir=RUN/{DUMP_FOLDER}"
        )
    else:
        description, problem = _read_description(dump / "run.json")
        gaps += [problem] if problem else []
    config, source = _section(description, "config"), f"{DUMP_FOLDER}/run.json"
    if not config:
        config, source, problem = _read_snapshot(path)
        gaps += [problem] if problem else []
    flat = flatten(config)
    seeds = _section(description, "seeds") or {key: value for key, value in flat.items() if is_seed(key)}
    versions = {str(key): str(value) for key, value in _section(description, "versions").items()}
    if not versions:
        gaps.append(f"versions are not known: {DUMP_FOLDER}/run.json has them, which the trainer's dump writes")
    changed_steps, said = _read_changes(path / CHANGES_FILE)
    return Run(name, path, log, flat, source if flat else None, versions, seeds, dump, (*gaps, *said), changed_steps)


def _read_changes(file: Path) -> tuple[tuple[int, ...], list[str]]:
    """The steps of a run's changes, and a sentence on each."""
    if not file.exists():
        return (), []
    steps, said = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            entry = json.loads(line)
            step = int(entry["step"])
            keys = [f"{key}: {before} -> {now}" for key, (before, now) in entry["changed"].items()]
        except (ValueError, KeyError, TypeError, AttributeError):
            said.append(f"line {number} of {file.name} is not a change as the launcher writes it, and is left out")
            continue
        steps.append(step)
        more = f" and {len(keys) - MAX_CHANGED_KEYS} more" if len(keys) > MAX_CHANGED_KEYS else ""
        shown = "; ".join(keys[:MAX_CHANGED_KEYS])
        said.append(f"went on with other settings after step {step} (dotted line): {shown}{more}")
    return tuple(steps), said


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists and empty mappings stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def is_seed(key: str) -> bool:
    """Whether a dotted config key is a seed that is set for the run as a whole."""
    return key in ("data.seed", "actor_rollout_ref.rollout.seed", "actor_rollout_ref.actor.data_loader_seed")


def _name_and_path(argument: str) -> tuple[str, Path]:
    if "=" in argument and not Path(argument).exists():
        name, _, path = argument.partition("=")
        if not name or not path:
            raise UserError(f"{argument!r} is neither a path that exists nor NAME=PATH")
        return name, Path(path)
    path = Path(argument)
    # resolve() so that "." has a name
    return (path.stem if path.suffix == ".jsonl" else path.resolve().name) or str(path), path


def _read_description(file: Path) -> tuple[Mapping[str, Any], str | None]:
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"{DUMP_FOLDER}/run.json is missing"
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"{DUMP_FOLDER}/run.json cannot be read: {error}"
    return (description, None) if isinstance(description, dict) else ({}, f"{DUMP_FOLDER}/run.json is not an object")


def _read_snapshot(path: Path) -> tuple[Mapping[str, Any], str, str | None]:
    for name in CONFIG_SNAPSHOTS:
        if (path / name).is_file():
            try:
                # Interpolations stay as they are written: resolving them could read this machine's environment.
                config = OmegaConf.to_container(OmegaConf.load(path / name), resolve=False)
            except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
                return {}, name, f"{name} cannot be read: {error}"
            return (config, name, None) if isinstance(config, dict) else ({}, name, f"{name} holds no mapping")
    return {}, "", "no config snapshot: train with hydra.run.dir=RUN, or with the rollout dump"


def _section(description: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = description.get(name)
    return section if isinstance(section, dict) else {}

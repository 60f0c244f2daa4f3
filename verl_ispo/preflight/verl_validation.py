"""verl's own checks of its config, run now instead of after the job has waited in a queue."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import runs_extra_forwards, setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding


def check_with_verl(config: DictConfig) -> Iterator[Finding]:
    """`verl.utils.config.validate_config`, and the rollout's dataclass, whose checks the workers run."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    own = copy.deepcopy(config)
    has_reference = setting(own, "actor_rollout_ref.ref") is not None
    faults = []
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for subject, check in (
            (
                "verl's validate_config",
                lambda: validate_config(
                    own,
                    use_reference_policy=has_reference and (need_reference_policy(own) or runs_extra_forwards(own)),
                    use_critic=need_critic(own),
                ),
            ),
            ("verl's RolloutConfig", lambda: omega_conf_to_dataclass(own.actor_rollout_ref.rollout)),
        ):
            try:
                check()
            except ImportError as error:
                faults.append(Finding(NOTE, subject, f"not finished, since {error.name} is not installed here"))
            except Exception as error:  # whatever verl would stop with
                faults.append(Finding(PROBLEM, subject, str(error).strip() or type(error).__name__))
    yield from faults or [Finding(OK, "verl's own checks", "passed")]

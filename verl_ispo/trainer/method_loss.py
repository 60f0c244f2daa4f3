"""A method's policy loss inside verl's: the fields of the micro-batch that verl does not hand to a policy loss.

verl's ``ppo_loss`` looks the policy loss up by name and passes it log-probs, advantages and the mask. `method_loss` is
set on the workers in its place (``set_loss_fn``) for a method whose loss reads more; it calls ``ppo_loss`` itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

# In the queue, before the name of a column of `Method.loss_columns`.
COLUMN_PREFIX = "method_loss_"


@dataclass(frozen=True)
class KnownOfLoss:
    """What a policy loss reads beside verl's arguments.

    Attributes:
        settings: the method's, checked.
        entropy: of the current policy, `(batch, response_length)`, detached; `None` where verl has not computed it.
        columns: of the method's `loss_columns`, `(batch, response_length)`.
    """

    settings: Any
    entropy: torch.Tensor | None = None
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)


_known: ContextVar[KnownOfLoss | None] = ContextVar("known_of_loss", default=None)


@contextmanager
def handed_to_loss(known: KnownOfLoss) -> Iterator[None]:
    """Inside the block, `handed_over_to_loss` returns ``known``."""
    token = _known.set(known)
    try:
        yield
    finally:
        _known.reset(token)


def handed_over_to_loss() -> KnownOfLoss | None:
    """What `method_loss` knows of the micro-batch; `None` where verl's own loss function runs."""
    return _known.get()


def method_loss(
    config: ActorConfig, settings: Any, model_output: dict[str, Any], data: TensorDict, dp_group: Any = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """verl's ``ppo_loss`` on the same arguments, with the method's settings and columns handed to its policy loss."""
    names = [name for name in data.keys() if name.startswith(COLUMN_PREFIX)]  # noqa: SIM118 - iterates over rows
    padded = data.select(*names).to_padded_tensor() if names else {}
    entropy = model_output.get("entropy")
    known = KnownOfLoss(
        settings=settings,
        entropy=None if entropy is None else no_padding_2_padding(entropy, data).detach(),
        columns={name.removeprefix(COLUMN_PREFIX): padded[name] for name in names},
    )
    with handed_to_loss(known):
        return ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)

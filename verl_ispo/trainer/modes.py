"""verl's three V1 trainers with ISPO's signals: ``ispo_sync``, ``ispo_colocate_async``, ``ispo_separate_async``.

The mixin comes *after* verl's mode class among the bases, so that by method order its hooks run inside verl's:
`PPOTrainerSeparateAsync` swaps the old weights in around ``_compute_old_log_prob``, and the ablated forward has to run
on those.
"""

from __future__ import annotations

import ray
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ispo.trainer.ispo_trainer import ISPOTrainerMixin
from verl_ispo.trainer.verl_workarounds.copied_weights import CopyingActorWorker


@register_trainer("ispo_sync")
class ISPOTrainerSync(PPOTrainerSync, ISPOTrainerMixin):
    """verl's synchronous trainer with ISPO."""

    verl_mode = "sync"


@register_trainer("ispo_colocate_async")
class ISPOTrainerColocateAsync(PPOTrainerColocateAsync, ISPOTrainerMixin):
    """verl's colocated asynchronous trainer (partial rollouts) with ISPO."""

    verl_mode = "colocate_async"


@register_trainer("ispo_separate_async")
class ISPOTrainerSeparateAsync(PPOTrainerSeparateAsync, ISPOTrainerMixin):
    """verl's asynchronous trainer with rollouts on devices of their own, with ISPO."""

    verl_mode = "separate_async"

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in (Role.Actor, Role.ActorRolloutRef, Role.ActorRollout):
            if role in self.role_worker_mapping:
                self.role_worker_mapping[role] = ray.remote(CopyingActorWorker)

"""The workarounds of this folder, at the hooks of verl's trainer."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import ray
from omegaconf import DictConfig
from ray.actor import ActorHandle
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.debug import marked_timer
from verl.workers.rollout.llm_server import LLMServerManager

from verl_ispo.runs.checkpoint_folder import megatron_sizes, note_latest, noted_step, resumption
from verl_ispo.trainer.budget import BudgetedTrainer
from verl_ispo.trainer.verl_workarounds.dead_queue import watch_queue
from verl_ispo.trainer.verl_workarounds.dead_workers import WorkerWatch, watchful
from verl_ispo.trainer.verl_workarounds.early_log_line import log_before_the_checkpoint
from verl_ispo.trainer.verl_workarounds.failed_weight_sync import watch_weight_syncs
from verl_ispo.trainer.verl_workarounds.kept_checkpoints import remove_older
from verl_ispo.trainer.verl_workarounds.last_checkpoint import end_with_the_data, saves_to_end
from verl_ispo.trainer.verl_workarounds.tensorboard_restart import mark_restart
from verl_ispo.trainer.verl_workarounds.weight_sockets import take_weight_sockets

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))


class TrainerWorkarounds(BudgetedTrainer):
    """verl's V1 trainer with the workarounds of this folder."""

    # whether `max_actor_ckpt_to_keep` counts over all starts of a run
    keeps_over_starts = False

    def __init__(self, config: DictConfig) -> None:
        if config.actor_rollout_ref.rollout.name == "vllm" and ray.is_initialized():
            self._weight_sockets = take_weight_sockets(ray.get_runtime_context().get_job_id())
        super().__init__(config)
        self._last_step: tuple[KVBatchMeta, dict] | None = None

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        end_with_the_data(self)

    def _build_replay_buffer(self) -> ReplayBuffer:
        watch_queue()
        if self.config.actor_rollout_ref.rollout.name == "vllm":
            watch_weight_syncs(self._servers_of_replicas)
        return watchful(super()._build_replay_buffer(), WorkerWatch(self._actors_of_rollouts))

    def _server_managers(self) -> list[LLMServerManager]:
        managers = (getattr(self, name, None) for name in ("llm_server_manager", "standalone_server_manager"))
        return [manager for manager in managers if manager]

    def _servers_of_replicas(self) -> dict[str, list[ActorHandle]]:
        """The servers of each replica of the rollout engine, by a name of the replica."""
        replicas = [replica for manager in self._server_managers() for replica in manager.get_replicas()]
        return {f"rollout engine {replica.replica_rank}": replica.servers for replica in replicas}

    def _actors_of_rollouts(self) -> dict[str, ActorHandle]:
        """The actors that rollouts need, by name."""
        managers = self._server_managers()
        servers = [server for manager in managers for server in manager.server_handles]
        named = {
            "load balancer": [manager.global_load_balancer for manager in managers],
            "agent-loop worker": self.agent_loop_manager.agent_loop_workers,
            "rollout server": servers,
            "reward worker": self.get_reward_handles() or [],
        }
        return {f"{name} {number}": actor for name, actors in named.items() for number, actor in enumerate(actors)}

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        if self._last_step is None:
            mark_restart(self)
        batch = super().step(metrics, timing_raw)
        self._last_step = (batch, metrics)
        if saves_to_end(self):
            logger.info(f"asked to end: saving step {self.global_steps}")
            with marked_timer("save_checkpoint", timing_raw):
                self._save_checkpoint()
        return batch

    def _save_checkpoint(self) -> None:
        if self._last_step is not None:
            log_before_the_checkpoint(self, *self._last_step)
        super()._save_checkpoint()
        keep = self.config.trainer.get("max_actor_ckpt_to_keep")
        saves_later = self.config.actor_rollout_ref.actor.get("checkpoint", {}).get("async_save", False)
        if self.keeps_over_starts and keep and not saves_later:
            remove_older(Path(self.config.trainer.default_local_dir), self.global_steps, keep)

    def _load_checkpoint(self) -> None:
        strategy = self.config.actor_rollout_ref.actor.strategy
        if self.config.trainer.resume_mode == "auto" and strategy in ("fsdp", "fsdp2", "megatron"):
            folder = Path(self.config.trainer.default_local_dir)
            ranks = self.config.trainer.nnodes * self.config.trainer.n_gpus_per_node
            found = resumption(folder, ranks, megatron_sizes(self.config.actor_rollout_ref.actor))
            if found.note:
                logger.warning(found.note)
            if found.step != (noted_step(folder) or 0):
                note_latest(folder, found.step)
        super()._load_checkpoint()

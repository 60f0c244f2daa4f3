"""The rollout server of the CPU back end, and what connects it to verl's trainer.

- `CPURolloutServer`: a Ray actor that holds the policy and samples; requests that arrive together run in one batch.
- `CPURolloutReplica`: starts the server (verl's ``RolloutReplica``).
- `CPURollout`: the trainer worker's end, sends new weights to the server (verl's ``BaseRollout``).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from omegaconf import DictConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from transformers import AutoModelForCausalLM
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from verl_ispo.cpu.asked_together import ASKED_TOGETHER
from verl_ispo.cpu.rollout_seed import rollout_seed
from verl_ispo.cpu.sampling import Sample, SampleRequest, sample_batch
from verl_ispo.end_of_sequence import end_of_sequence_ids

# A batch starts when no request has come for the quiet time, at the latest after the longest wait.
QUIET_TIME_S = 0.005
LONGEST_WAIT_S = 0.25
# Requests that say how many they are wait for the others, unless none has come for so long: one may have failed.
MISSING_AFTER_S = 20.0


def server_actor_name(replica_rank: int) -> str:
    """Ray name under which the trainer's workers find the server of a replica."""
    return f"verl_ispo_cpu_rollout_server_{replica_rank}"


@dataclass(frozen=True)
class _Waiting:
    request: SampleRequest
    future: asyncio.Future[Sample]
    together: tuple[str, int] | None


class CPURolloutServer:
    """Samples for verl's agent loops. All methods run on the actor's event loop; the model runs in one thread."""

    def __init__(self, config: RolloutConfig, model_config: DictConfig) -> None:
        self.config = config
        self.model_config: HFModelConfig = omega_conf_to_dataclass(model_config)
        self.model = AutoModelForCausalLM.from_config(
            self.model_config.hf_config, dtype=getattr(torch, config.dtype), attn_implementation="sdpa"
        ).eval()
        self.eos_token_ids = end_of_sequence_ids(
            self.model_config.tokenizer.eos_token_id, getattr(self.model_config, "generation_config", None)
        )
        self._unseeded: Counter[tuple[int, ...]] = Counter()
        self._unseeded_step: int | None = None
        self.global_steps: int | None = None
        self._queue: list[_Waiting] = []
        self._last_arrival_s = 0.0
        self._arrived = asyncio.Event()
        self._accepting = asyncio.Event()
        self._accepting.set()
        self._rejecting = False
        self._abort = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop_task: asyncio.Task[None] | None = None

    async def generate(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        """Continue a prompt; the signature is that of verl's other servers."""
        if not self._accepting.is_set() and self._rejecting:
            raise RuntimeError(f"request {request_id} rejected: the rollout server is paused")
        await self._accepting.wait()
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._serve())
        asked = sampling_params.get("max_tokens", sampling_params.get("max_new_tokens"))
        request = SampleRequest(
            prompt_ids=tuple(int(token) for token in prompt_ids),
            max_new_tokens=self.config.response_length if asked is None else int(asked),
            temperature=float(sampling_params.get("temperature", 1.0)),
            top_k=int(sampling_params.get("top_k", -1)),
            top_p=float(sampling_params.get("top_p", 1.0)),
            seed=self._seed_of(prompt_ids, sampling_params.get("seed")),
        )
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(request, future, sampling_params.get(ASKED_TOGETHER)))
        self._last_arrival_s = time.monotonic()
        self._arrived.set()
        sample = await future
        return TokenOutput(
            token_ids=sample.token_ids,
            log_probs=sample.log_probs,
            stop_reason=sample.stop_reason,
            num_preempted=0,
            extra_fields={"global_steps": self.global_steps},
        )

    def _seed_of(self, prompt_ids: list[int], given: int | None) -> int:
        """The request's own seed, or one for each time that a prompt comes: without it all of a group would be equal.

        Only `SeededSingleTurnAgentLoop` gives one; a data set may name any other agent loop.
        """
        if given is not None:
            return int(given)
        if self._unseeded_step != self.global_steps:
            self._unseeded.clear()
            self._unseeded_step = self.global_steps
        prompt = tuple(int(token) for token in prompt_ids)
        self._unseeded[prompt] += 1
        return rollout_seed(self.config.seed, self.global_steps or 0, prompt, self._unseeded[prompt])

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            batch = await self._next_batch()
            if not self._queue:
                self._arrived.clear()
            self._idle.clear()
            try:
                samples = await asyncio.to_thread(
                    sample_batch,
                    self.model,
                    [waiting.request for waiting in batch],
                    self.eos_token_ids,
                    lambda: self._abort,
                )
                for waiting, sample in zip(batch, samples, strict=True):
                    if not waiting.future.cancelled():
                        waiting.future.set_result(sample)
            except Exception as error:
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(error)
            finally:
                self._idle.set()

    async def _next_batch(self) -> list[_Waiting]:
        """The requests to answer next, out of the queue: all asked for together, in a fixed order, or what has come."""
        together = self._queue[0].together
        begun_s = time.monotonic()
        while True:
            quiet_s = time.monotonic() - self._last_arrival_s
            if together is not None:
                batch = [waiting for waiting in self._queue if waiting.together == together]
                if len(batch) >= together[1] or quiet_s > MISSING_AFTER_S or self._abort:
                    batch.sort(key=lambda waiting: (waiting.request.prompt_ids, waiting.request.seed))
                    break
            elif quiet_s >= QUIET_TIME_S or time.monotonic() - begun_s >= LONGEST_WAIT_S:
                batch = [waiting for waiting in self._queue if waiting.together is None]
                break
            await asyncio.sleep(QUIET_TIME_S / 2)
        taken = set(map(id, batch))
        most = self.config.max_num_seqs
        # those that do not fit come next, without waiting again
        rest = [replace(waiting, together=None) for waiting in batch[most:]]
        self._queue = [*rest, *(waiting for waiting in self._queue if id(waiting) not in taken)]
        return batch[:most]

    async def update_weights(self, weights: dict[str, torch.Tensor], global_steps: int | None) -> None:
        """Copy a bucket of full tensors into the model, by name.

        Raises:
            KeyError: a name that the model does not have.
        """
        await self._idle.wait()
        parameters = self.model.state_dict()
        for name, tensor in weights.items():
            if name not in parameters:
                raise KeyError(f"the trainer sent the weight {name!r}, which {type(self.model).__name__} does not have")
            parameters[name].copy_(tensor)
        self.global_steps = global_steps

    async def abort_all_requests(self, reject_request: bool = False) -> None:
        """End open sequences as ``aborted`` and hold (or reject) new ones until `resume_generation`."""
        self._rejecting = reject_request
        self._accepting.clear()
        self._abort = True
        while self._queue or not self._idle.is_set():
            await asyncio.sleep(QUIET_TIME_S)

    async def resume_generation(self) -> None:
        """Take requests again."""
        self._abort = self._rejecting = False
        self._accepting.set()

    async def sleep(self) -> None:
        """Nothing to free: weights live in ordinary memory and the KV cache with its batch."""

    async def wake_up(self) -> None:
        """Nothing to restore."""

    async def clear_kv_cache(self) -> None:
        """Nothing to clear: no prefix is cached across batches."""

    async def release_kv_cache(self) -> None:
        """Nothing to free."""

    async def resume_kv_cache(self) -> None:
        """Nothing to restore."""

    async def start_profile(self, **_: Any) -> None:
        """No profiler on this server."""

    async def stop_profile(self) -> None:
        """No profiler on this server."""


class CPURolloutReplica(RolloutReplica):
    """One server actor per replica, on the node of its worker."""

    async def launch_servers(self) -> None:
        if self.world_size != 1:
            raise ValueError(
                "the CPU rollout server runs a whole model in one process: set "
                "actor_rollout_ref.rollout.tensor_model_parallel_size=1 (and data, pipeline parallel sizes 1), "
                f"got a replica of {self.world_size}"
            )
        node_id = await self.workers[0].__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
        server = ray.remote(CPURolloutServer).options(
            name=server_actor_name(self.replica_rank),
            num_cpus=0,
            max_concurrency=self.max_concurrency,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node_id, soft=False),
        )
        self._server_handle = server.remote(self.config, self.model_config)
        self.servers = [self._server_handle]
        self._server_address = server_actor_name(self.replica_rank)
        await self._server_handle.wake_up.remote()


class CPURollout(BaseRollout):
    """Sends the worker's weights to the server of its replica."""

    def __init__(self, *args: Any, replica_rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Replicas are single-process, so a colocated worker's rank is its replica's.
        self.replica_rank = torch.distributed.get_rank() if replica_rank is None else replica_rank
        self.is_leader_rank = True

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """Nothing to release."""

    async def update_weights(
        self,
        weights: Generator[tuple[str, torch.Tensor], None, None],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        peft_config: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Send full tensors in buckets of ``checkpoint_engine.update_weights_bucket_megabytes``."""
        if peft_config is not None:
            raise NotImplementedError(
                "the CPU rollout server takes whole weights, not an adapter: set "
                "actor_rollout_ref.model.lora.merge=true"
            )
        if wire_format != "named_tensors":
            raise NotImplementedError(f"the CPU rollout server takes full tensors, not {wire_format!r}")
        server = ray.get_actor(server_actor_name(self.replica_rank))
        bucket_bytes = self.config.checkpoint_engine.update_weights_bucket_megabytes << 20
        bucket: dict[str, torch.Tensor] = {}
        filled = 0
        # The generator gathers each tensor across ranks, so every rank has to run it to its end.
        named = [item async for item in weights] if hasattr(weights, "__aiter__") else weights
        for name, tensor in named:
            bucket[name] = tensor.detach().cpu().clone()
            filled += tensor.numel() * tensor.element_size()
            if filled >= bucket_bytes:
                await server.update_weights.remote(bucket, global_steps)
                bucket, filled = {}, 0
        if bucket:
            await server.update_weights.remote(bucket, global_steps)

"""Memory of a GPU by role, from the model's shape: estimates, meant to tell 30 GiB from 90, not 70 from 75.

What is counted, for a model of P parameters:

- FSDP: weights, gradients and two AdamW moments, each P times the bytes of ``fsdp_config.model_dtype`` (fp32 by verl's
  default), divided among the shards; gathered in 2 bytes: two layers and the parameters outside of the layers.
- Megatron: weights in 2 bytes and gradients in 4, divided among tensor and pipeline ranks; master weights and moments,
  12 bytes, also among the data-parallel ranks with the distributed optimizer.
- Activations: where layers are recomputed, the input of each layer and the inside of one; otherwise the inside of all.
- Logits: two float32 tensors of a micro-batch's tokens times the vocabulary (logits and their gradient, or logits and
  their softmax); one with chunked entropy; none with fused kernels.
- The reference policy: in host memory under FSDP, which moves forward-only models there.
- The rollout engine: ``gpu_memory_utilization`` of the whole GPU, which holds the weights, the engine's own buffers,
  and in what is left the KV cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from verl_ispo.preflight.composition import Parallelism, longest_sequence, setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.model_shape import (
    ModelShape,
    layer_parameter_count,
    lora_parameter_count,
    outer_parameter_count,
    parameter_count,
)

GIB = 2**30
# CUDA contexts, NCCL buffers and what the allocator does not give back, of trainer and engine together.
OVERHEAD_BYTES = 3 * GIB
# Activations of the largest prefill, CUDA graphs, sampling.
ENGINE_BUFFER_BYTES = 2 * GIB
DTYPE_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "float64": 8}
ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"
RECOMPUTE_KEY = f"{ACTOR}.megatron.override_transformer_config.recompute_granularity"


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU.

    Attributes:
        weights, gradients, moments: of the actor, its share.
        gathered: parameters that FSDP holds whole for a moment.
        activations: of a micro-batch in the update.
        update_logits, log_prob_logits: of a micro-batch in the update, in the pass for the old log-probs.
        kept_weights, kept_moments: of the actor, what stays on the GPU while the rollout runs.
        reference: of the reference policy.
        engine: what the rollout engine reserves.
        engine_weights: the part of it for the weights.
        kv_cache: the part of it that is left for the KV cache.
        kv_sequence: KV cache of one full-length sequence.
        engine_shares_gpu: whether training and rollout use the same GPUs.
        engine_sleeps: whether the engine gives its memory back during the update.
    """

    weights: float
    gradients: float
    moments: float
    gathered: float
    activations: float
    update_logits: float
    log_prob_logits: float
    kept_weights: float
    kept_moments: float
    reference: float
    engine: float
    engine_weights: float
    kv_cache: float
    kv_sequence: float
    engine_shares_gpu: bool
    engine_sleeps: bool

    @property
    def update(self) -> float:
        """Peak of the update."""
        state = self.weights + self.gradients + self.moments + self.gathered + self.reference
        return state + self.activations + self.update_logits + OVERHEAD_BYTES + self._awake_engine

    @property
    def log_prob(self) -> float:
        """Peak of the pass for the old log-probs, which keeps no activations."""
        state = self.weights + self.kept_moments + self.gathered + self.reference
        return state + self.log_prob_logits + OVERHEAD_BYTES + self._awake_engine

    @property
    def rollout(self) -> float:
        """Peak of sampling."""
        resident = self.kept_weights + self.kept_moments + self.reference if self.engine_shares_gpu else 0
        return resident + self.engine + OVERHEAD_BYTES

    @property
    def full_sequences(self) -> int:
        """Full-length sequences that the KV cache of one engine's GPUs holds at once."""
        return max(0, int(self.kv_cache / self.kv_sequence))

    @property
    def _awake_engine(self) -> float:
        return self.engine if self.engine_shares_gpu and not self.engine_sleeps else 0


def estimate_memory(
    config: DictConfig, shape: ModelShape, parallelism: Parallelism, gpu_bytes: float
) -> MemoryEstimate | None:
    """Estimate a GPU's memory by role, or `None` for a model whose parameters are not counted here.

    Args:
        config (`DictConfig`): the composed config.
        shape (`ModelShape`): of the model.
        parallelism (`Parallelism`): how the GPUs are divided.
        gpu_bytes (`float`): memory of one GPU.
    """
    parameters = parameter_count(shape)
    if parameters is None:
        return None
    rank = lora_rank(config)
    trained = lora_parameter_count(shape, rank) if rank else parameters
    section = "megatron" if parallelism.is_megatron else "fsdp_config"
    weights, gradients, moments = (
        _megatron_state(config, parallelism, parameters, trained)
        if parallelism.is_megatron
        else _fsdp_state(config, parallelism, parameters, trained)
    )
    always_on_cpu = bool(setting(config, f"{ACTOR}.fsdp_config.offload_policy", False)) and not parallelism.is_megatron
    if always_on_cpu:
        weights = gradients = moments = 0.0
    offloads_weights = bool(setting(config, f"{ACTOR}.{section}.param_offload", False))
    offloads_moments = bool(setting(config, f"{ACTOR}.{section}.optimizer_offload", False))
    reference_offload = bool(setting(config, "actor_rollout_ref.ref.megatron.param_offload", False))
    on_gpu = parallelism.is_megatron and not reference_offload and not rank
    engine_weights = 2.0 * parameters / setting(config, f"{ROLLOUT}.tensor_model_parallel_size", 1)
    engine = setting(config, f"{ROLLOUT}.gpu_memory_utilization", 0.5) * gpu_bytes
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        moments=moments,
        gathered=0.0
        if parallelism.is_megatron
        else 2.0 * (outer_parameter_count(shape) + 2 * layer_parameter_count(shape)),
        activations=activation_bytes(config, shape, parallelism),
        update_logits=logit_bytes(config, shape, parallelism, update_tokens(config, parallelism), copies=2),
        log_prob_logits=logit_bytes(
            config,
            shape,
            parallelism,
            log_prob_tokens(config, parallelism),
            copies=1 if setting(config, f"{ACTOR}.entropy_from_logits_with_chunking", False) else 2,
        ),
        kept_weights=0.0 if offloads_weights else weights,
        kept_moments=0.0 if offloads_moments else moments,
        reference=2.0 * parameters / (parallelism.tensor * parallelism.pipeline) if on_gpu else 0.0,
        engine=engine,
        engine_weights=engine_weights,
        kv_cache=engine - engine_weights - ENGINE_BUFFER_BYTES,
        kv_sequence=kv_bytes_a_token(config, shape) * longest_sequence(config),
        engine_shares_gpu=not str(setting(config, "trainer.v1.trainer_mode", "")).endswith("separate_async"),
        engine_sleeps=bool(setting(config, f"{ROLLOUT}.free_cache_engine", True))
        and bool(setting(config, f"{ROLLOUT}.enable_sleep_mode", True)),
    )


def lora_rank(config: DictConfig) -> int:
    """Rank of the adapters, 0 without; verl has a key for Megatron and one for FSDP."""
    return setting(config, f"{MODEL}.lora.rank", 0) or setting(config, f"{MODEL}.lora_rank", 0)


def _fsdp_state(config: DictConfig, parallelism: Parallelism, parameters: int, trained: int) -> tuple[float, ...]:
    size = DTYPE_BYTES.get(str(setting(config, f"{ACTOR}.fsdp_config.model_dtype", "fp32")), 4)
    shards = parallelism.fsdp_shards
    whole_gradients = setting(config, f"{ACTOR}.fsdp_config.use_no_sync_for_gradient_accumulation", False)
    return (
        size * parameters / shards,
        size * trained / (1 if whole_gradients else shards),
        2.0 * size * trained / shards,
    )


def _megatron_state(config: DictConfig, parallelism: Parallelism, parameters: int, trained: int) -> tuple[float, ...]:
    ranks = parallelism.tensor * parallelism.pipeline
    spread = parallelism.data * parallelism.context
    shards = spread if setting(config, f"{ACTOR}.megatron.use_distributed_optimizer", True) else 1
    return 2.0 * parameters / ranks, 4.0 * trained / ranks, 12.0 * trained / (ranks * shards)


def update_tokens(config: DictConfig, parallelism: Parallelism) -> float:
    """Most tokens of a micro-batch on one GPU in the update."""
    return _tokens(
        config,
        parallelism,
        bool(setting(config, f"{ACTOR}.use_dynamic_bsz")),
        setting(config, f"{ACTOR}.ppo_max_token_len_per_gpu"),
        setting(config, f"{ACTOR}.ppo_micro_batch_size_per_gpu"),
    )


def log_prob_tokens(config: DictConfig, parallelism: Parallelism) -> float:
    """The same in the pass for the old log-probs."""
    return _tokens(
        config,
        parallelism,
        bool(setting(config, f"{ROLLOUT}.log_prob_use_dynamic_bsz")),
        setting(config, f"{ROLLOUT}.log_prob_max_token_len_per_gpu"),
        setting(config, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu"),
    )


def _tokens(config: DictConfig, parallelism: Parallelism, dynamic: bool, budget: int | None, rows: int | None) -> float:
    if dynamic and budget:
        return budget  # of each GPU; sequence-parallel ranks add theirs up
    return (rows or 1) * longest_sequence(config) / (parallelism.ulysses * parallelism.context)


def logit_bytes(config: DictConfig, shape: ModelShape, parallelism: Parallelism, tokens: float, copies: int) -> float:
    """Float32 tensors of tokens times vocabulary."""
    if setting(config, f"{MODEL}.use_fused_kernels", False):
        return 0.0
    return tokens * shape.vocab_size / parallelism.tensor * 4.0 * copies


def shards_output_head(config: DictConfig, shape: ModelShape) -> bool:
    """Whether FSDP2 shards the output head on its own: verl's fused kernels then find a shard instead of a matrix."""
    own_head = not (shape.tie_word_embeddings or shape.is_multimodal)
    return setting(config, f"{ACTOR}.strategy") == "fsdp2" and own_head


def activation_bytes(config: DictConfig, shape: ModelShape, parallelism: Parallelism) -> float:
    """Activations of a micro-batch in 2 bytes: layer inputs, and about 8 hidden and 3 inner vectors inside a layer."""
    tokens = update_tokens(config, parallelism)
    # Not divided by the pipeline's ranks: the first one holds activations of as many micro-batches as there are ranks.
    layers = shape.num_hidden_layers
    inputs = tokens * shape.hidden_size * 2.0 / parallelism.tensor
    inside = tokens * (8 * shape.hidden_size + 3 * shape.intermediate_size) * 2.0 / parallelism.tensor
    return inputs * layers + inside if recomputes_layers(config, parallelism) else inside * layers


def recomputes_layers(config: DictConfig, parallelism: Parallelism) -> bool:
    """Whether the backward pass computes each layer again; Megatron and FSDP have different keys for it."""
    if parallelism.is_megatron:
        return setting(config, RECOMPUTE_KEY) == "full"
    return bool(setting(config, f"{MODEL}.enable_gradient_checkpointing", True))


def kv_bytes_a_token(config: DictConfig, shape: ModelShape) -> float:
    """Keys and values of one token on one GPU of an engine, in 2 bytes; heads are not split below one."""
    tensor = setting(config, f"{ROLLOUT}.tensor_model_parallel_size", 1)
    heads = max(1.0, shape.num_key_value_heads / tensor)
    return 2 * shape.num_hidden_layers * heads * shape.head_dim * 2.0


def check_memory(
    config: DictConfig, shape: ModelShape | None, parallelism: Parallelism, gpu_memory_gib: float
) -> Iterator[Finding]:
    """Each phase of a step against the memory of a GPU, with the numbers."""
    if setting(config, "trainer.device") == "cpu":
        return  # check_cpu_memory
    if shape is None or parallelism.gpus % parallelism.model_parallel:
        return  # check_context or check_parallel_sizes reports it
    memory = estimate_memory(config, shape, parallelism, gpu_memory_gib * GIB)
    if memory is None:
        yield Finding(NOTE, "memory", f"not estimated for models of type {shape.model_type} (experts, towers, ...)")
        return
    parameters = parameter_count(shape) or 0
    fused_kernels = "" if shards_output_head(config, shape) else f" or {MODEL}.use_fused_kernels=true"
    yield Finding(
        OK,
        "memory",
        f"{parameters / 1e9:.2f} B parameters. The following are estimates for one GPU of {gpu_memory_gib:g} GiB "
        "(--gpu-memory-gib)",
    )
    yield _phase(
        "memory, update",
        memory.update,
        gpu_memory_gib,
        f"weights {_gib(memory.weights)}, gradients {_gib(memory.gradients)}, AdamW {_gib(memory.moments)}, gathered "
        f"{_gib(memory.gathered)}, reference {_gib(memory.reference)}, activations {_gib(memory.activations)}, logits "
        f"{_gib(memory.update_logits)} ({update_tokens(config, parallelism):.0f} tokens x {shape.vocab_size} x "
        "4 bytes x 2)",
        f"lower {ACTOR}.ppo_max_token_len_per_gpu (or ppo_micro_batch_size_per_gpu), set "
        f"{_recompute_setting(parallelism)}{fused_kernels}, or take more GPUs",
    )
    yield _phase(
        "memory, log-probs",
        memory.log_prob,
        gpu_memory_gib,
        f"logits and their softmax {_gib(memory.log_prob_logits)}",
        f"lower {ROLLOUT}.log_prob_max_token_len_per_gpu (or log_prob_micro_batch_size_per_gpu), or set "
        f"{ACTOR}.entropy_from_logits_with_chunking=true",
    )
    yield _phase(
        "memory, rollout",
        memory.rollout,
        gpu_memory_gib,
        f"engine {_gib(memory.engine)}, with weights {_gib(memory.engine_weights)} and KV cache "
        f"{_gib(memory.kv_cache)}; actor {_gib(memory.kept_weights + memory.kept_moments)} beside it",
        f"lower {ROLLOUT}.gpu_memory_utilization, or offload the actor "
        f"({ACTOR}.fsdp_config.param_offload=true, optimizer_offload=true)",
    )
    yield _kv_cache(config, memory)


def _recompute_setting(parallelism: Parallelism) -> str:
    if not parallelism.is_megatron:
        return f"{MODEL}.enable_gradient_checkpointing=true"
    section = RECOMPUTE_KEY.rsplit(".", 1)[0]
    return f"{RECOMPUTE_KEY}=full ({section}.recompute_method=uniform, recompute_num_layers=1)"


def _phase(subject: str, total: float, gpu_memory_gib: float, parts: str, remedy: str) -> Finding:
    share = f"about {_gib(total)} of {gpu_memory_gib:g} GiB ({parts}, other {_gib(OVERHEAD_BYTES)})"
    if total > gpu_memory_gib * GIB:
        return Finding(PROBLEM, subject, f"{share}; {remedy}")
    if total > 0.9 * gpu_memory_gib * GIB:
        return Finding(NOTE, subject, f"{share}, which is tight; {remedy}")
    return Finding(OK, subject, share)


def _kv_cache(config: DictConfig, memory: MemoryEstimate) -> Finding:
    key = f"{ROLLOUT}.gpu_memory_utilization"
    text = (
        f"is {setting(config, key)}: {_gib(memory.engine)} per GPU hold {memory.full_sequences} sequence(s) of "
        f"{longest_sequence(config)} tokens ({memory.kv_sequence / 2**20:.0f} MiB each) at once"
    )
    if memory.full_sequences < 1:
        return Finding(
            PROBLEM, key, f"{text}; the engine needs memory for one. Raise it, or {ROLLOUT}.tensor_model_parallel_size"
        )
    return Finding(OK, key, text)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"

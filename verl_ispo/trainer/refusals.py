"""Settings with which ISPO cannot work, refused before anything starts.

These are settings that would silently train something other than what was asked for, or fail only after the first
rollouts. What verl itself refuses at once is left to verl. What depends on files, packages and machines is left to the
preflight, which reports these refusals too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

from verl_ispo.config.ispo_trainer_config import ISPOTrainerConfig
from verl_ispo.config.signal_use import observes_signals, trains_on_signals
from verl_ispo.methods.method import Contradiction, Method, Need
from verl_ispo.methods.registry import method_of, methods

ALGORITHM, MODEL, ACTOR = "algorithm", "actor_rollout_ref.model", "actor_rollout_ref.actor"
ESTIMATOR = f"{ALGORITHM}.adv_estimator"
LOSS_MODE = f"{ACTOR}.policy_loss.loss_mode"
TRAINER_MODE = "trainer.v1.trainer_mode"
ROPE_KEYS = ("rope_theta", "rope_parameters", "rope_scaling")
# The key with which a strategy builds an adapter (workers/engine of verl 0.9.1); other strategies have none.
FSDP_RANK, MEGATRON_RANK = f"{MODEL}.lora_rank", f"{MODEL}.lora.rank"
ADAPTER_RANKS = {"fsdp": FSDP_RANK, "fsdp2": FSDP_RANK, "fsdp_turbo": FSDP_RANK, "megatron": MEGATRON_RANK}
# What only verl's own pass over the rollouts gives.
OF_THE_POLICY_PASS = {Need.ENTROPY, Need.LOG_PROB, Need.PROMPT_LOG_PROB, Need.ISPO_SIGNALS, Need.PREFIX_SCORES}


class UnsupportedSettingError(ValueError):
    """Settings that contradict ISPO; the message names their keys and the remedy."""


@dataclass(frozen=True)
class Refusal:
    """One setting, or a pair of them, that cannot be trained with.

    Attributes:
        key: the setting to change.
        sentence: key, value, reason and remedy.
    """

    key: str
    sentence: str


def refuse_unsupported_settings(config: DictConfig) -> None:
    """Raise `UnsupportedSettingError` with all of `unsupported_settings`, one per line."""
    found = [refusal.sentence for refusal in unsupported_settings(config)]
    if found:
        raise UnsupportedSettingError("\n".join(found))


def unsupported_settings(config: DictConfig) -> Iterator[Refusal]:
    """What an ISPO trainer mode refuses of a composed config."""
    yield from _without_what_signals_need(config)
    yield from _without_what_the_loss_needs(config)
    yield from _without_what_further_rollouts_need(config)
    yield from _engine_of_the_device(config)
    yield from _adapters(config)
    yield from _sequence_parallel(config)
    yield from _rope_overrides(config)
    yield from _unknown_names(config)
    yield from _trainer_settings(config)
    yield from _contradictions(config)


def scores_texts(method: Method | None) -> bool:
    """Whether a method sends the policy texts that are no rollouts: prompts to choose from, or parts of responses."""
    return method is not None and (method.prompt_choice is not None or Need.PREFIX_SCORES in method.needs)


def multimodal_refusal(what: str) -> Refusal:
    """For a model with a vision or audio tower; the trainer reads its config.json only once it has started."""
    return Refusal(
        f"{MODEL}.path",
        f"{MODEL}.path={what} has a vision or audio tower, and the texts that ISPO's signals and some methods "
        "score are without images, sound or multi-dimensional position ids. Take a text model.",
    )


def _setting(config: DictConfig, key: str) -> object:
    return OmegaConf.select(config, key, default=None)


def _without_what_signals_need(config: DictConfig) -> Iterator[Refusal]:
    needs_signals = observes_signals(config)
    method = method_of(_setting(config, ESTIMATOR))
    needs_pass = method is not None and bool(method.needs & OF_THE_POLICY_PASS)
    bypass = f"{ALGORITHM}.rollout_correction.bypass_mode"
    if (needs_signals or needs_pass) and _setting(config, bypass):
        reader = "ISPO's entropy filter" if needs_signals else f"adv_estimator={method.name}"
        yield Refusal(
            bypass,
            f"{bypass}=true takes old log-probs from the rollout engine and computes no entropy, which {reader} needs. "
            f"Set {bypass}=false.",
        )
    # Megatron and VeOmni have router replay, under the same key of their own section.
    replay = f"{ACTOR}.{_setting(config, f'{ACTOR}.strategy')}.router_replay.mode"
    if (needs_signals or scores_texts(method)) and _setting(config, replay) not in (None, "disabled"):
        scored = "prompts" if method is not None and method.prompt_choice is not None else "texts"
        rows = "the trace-ablated rows" if needs_signals else f"the {scored} that {method.name} scores"
        yield Refusal(
            replay,
            f"{replay}={_setting(config, replay)} records or replays expert routes row by row, and {rows} have none. "
            "Set it to disabled.",
        )
    needs_reference = method is not None and Need.REFERENCE_LOG_PROB in method.needs
    if (needs_signals or needs_reference) and _setting(config, "actor_rollout_ref.ref") is None:
        reader = f"adv_estimator={method.name}" if needs_reference else "ISPO's drift filter"
        yield Refusal(
            "actor_rollout_ref.ref",
            f"actor_rollout_ref.ref is missing: {reader} compares the policy with the frozen base model. "
            "Compose from ispo_trainer or ispo_megatron_trainer, which bring it.",
        )
    task_rewards = "distillation.distillation_loss.use_task_rewards"
    if trains_on_signals(config) and _setting(config, "distillation.enabled") and not _setting(config, task_rewards):
        yield Refusal(
            task_rewards,
            f"{task_rewards}=false with distillation.enabled=true drops the policy loss, so ISPO's reward would be "
            f"computed and not trained on. Set {task_rewards}=true or distillation.enabled=false.",
        )


def _without_what_the_loss_needs(config: DictConfig) -> Iterator[Refusal]:
    """A method's own policy loss: the current entropy, whole groups, and verl's loss function around it."""
    method = method_of(_setting(config, ESTIMATOR))
    if method is None:
        return
    entropy, shuffle = f"{ACTOR}.calculate_entropy", f"{ACTOR}.shuffle"
    if method.loss_needs_entropy and not _setting(config, entropy):
        yield Refusal(
            entropy,
            f"{entropy}={_setting(config, entropy)}: the loss of {method.name} reads the current policy's entropy. "
            f"Set {entropy}=true, as method={method.name} does.",
        )
    if method.whole_groups and _setting(config, shuffle):
        yield Refusal(
            shuffle,
            f"{shuffle}=true takes a prompt's rollouts apart, which the loss of {method.name} compares. "
            f"Set {shuffle}=false.",
        )
    if method.loss_reads_more and _setting(config, "distillation.enabled"):
        yield Refusal(
            "distillation.enabled",
            f"distillation.enabled=true replaces verl's policy loss, which {method.name} gives more fields to. "
            "Set distillation.enabled=false.",
        )


def _without_what_further_rollouts_need(config: DictConfig) -> Iterator[Refusal]:
    """Hinted rollouts and traces: the synchronous mode, in which nothing else is in the queue, and scores in it."""
    method = method_of(_setting(config, ESTIMATOR))
    if method is None or (method.hinted_rollouts is None and method.trace_column is None):
        return
    what = "traces of the data" if method.hinted_rollouts is None else "rollouts with hints"
    asks = f"adv_estimator={method.name} asks for {what} once the step's own rollouts are there"
    log_probs = "actor_rollout_ref.rollout.calculate_log_probs"
    if method.trace_column is not None and _setting(config, log_probs):
        yield Refusal(
            log_probs,
            f"{log_probs}=true reads the rollout engine's log-probs, and traces of the data have none. "
            f"Set {log_probs}=false.",
        )
    mode = _setting(config, TRAINER_MODE)
    if mode != "ispo_sync":
        yield Refusal(
            TRAINER_MODE,
            f"{TRAINER_MODE}={mode}: {asks}, which it can tell from those of other steps in the synchronous mode "
            f"alone. Set {TRAINER_MODE}=ispo_sync.",
        )
    own_pool = "reward.reward_model.enable_resource_pool"
    if _setting(config, "reward.reward_model.enable") and not _setting(config, own_pool):
        yield Refusal(
            own_pool,
            f"{own_pool}={_setting(config, own_pool)} with reward.reward_model.enable=true scores rollouts after the "
            f"rollout engine has gone to sleep, and {asks} before that. Set {own_pool}=true.",
        )
    refill = "trainer.v1.sampler.sync_refill_failed_groups"
    if _setting(config, refill):
        yield Refusal(
            refill,
            f"{refill}=true puts another prompt in the place of one whose rollouts fail, and {asks}: a failed one of "
            f"those must not bring a prompt of the data. Set {refill}=false.",
        )


def _engine_of_the_device(config: DictConfig) -> Iterator[Refusal]:
    """verl has no Megatron engine for a CPU; its worker would say so after the start of Ray, by a KeyError."""
    strategy, external = f"{ACTOR}.strategy", f"{MODEL}.external_lib"
    no_engine_from = (None, "verl_ispo.cpu.process_group")
    if (
        _setting(config, strategy) == "megatron"
        and _setting(config, "trainer.device") == "cpu"
        and _setting(config, external) in no_engine_from
    ):
        yield Refusal(
            strategy,
            f"{strategy}=megatron with trainer.device=cpu: verl has no Megatron engine for a CPU. Train with "
            f"--config-name=ispo_trainer, or name a module that registers such an engine as {external}.",
        )


def _adapters(config: DictConfig) -> Iterator[Refusal]:
    """LoRA: to verl's trainer any of the keys means an adapter in the actor, but each engine reads only one of them."""
    strategy, path = str(_setting(config, f"{ACTOR}.strategy")), f"{MODEL}.lora_adapter_path"
    rank_key = ADAPTER_RANKS.get(strategy)
    given = [key for key in (FSDP_RANK, MEGATRON_RANK) if (_setting(config, key) or 0) > 0]
    given += [path] if _setting(config, path) is not None else []
    if not given:
        return
    values = " and ".join(f"{key}={_setting(config, key)}" for key in given)
    whole_model = "so the whole model would be trained, without a base model to compare it with"
    if rank_key is None:
        yield Refusal(
            given[0],
            f"{values}: verl's {strategy} engine builds no adapter, {whole_model}. Set {ACTOR}.strategy to one of "
            f"{', '.join(sorted(ADAPTER_RANKS))}, or leave the adapter out.",
        )
    elif rank_key not in given:
        yield Refusal(
            given[0],
            f"{values}: verl's {strategy} engine builds an adapter from {rank_key} alone, {whole_model}. Set it.",
        )
    elif strategy == "megatron" and path in given:
        yield Refusal(
            path,
            f"{path}={_setting(config, path)}: verl's Megatron engine does not read it and would start from a new "
            f"adapter. Set {MODEL}.lora.adapter_path.",
        )
    elif _setting(config, TRAINER_MODE) == "ispo_separate_async" and not _setting(config, f"{MODEL}.lora.merge"):
        yield Refusal(
            f"{MODEL}.lora.merge",
            f"{MODEL}.lora.merge=false with {TRAINER_MODE}=ispo_separate_async sends the weights to the rollout "
            f"without the adapter, so the base model would write every rollout. Set {MODEL}.lora.merge=true.",
        )


def _sequence_parallel(config: DictConfig) -> Iterator[Refusal]:
    """Ulysses exchanges heads for tokens around flash attention alone (models/transformers/monkey_patch.py)."""
    attention = f"{MODEL}.override_config.attn_implementation"
    implementation = _setting(config, attention)
    if implementation is None or "flash" in str(implementation):  # verl's default is flash_attention_2
        return
    for key in (f"{ACTOR}.ulysses_sequence_parallel_size", f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size"):
        if (_setting(config, key) or 1) > 1:
            yield Refusal(
                key,
                f"{key}={_setting(config, key)} with {attention}={implementation} lets each rank attend to its own "
                f"part of a sequence only, and silently gives wrong log-probs. Set {key}=1 or leave "
                f"{attention} out.",
            )


def _rope_overrides(config: DictConfig) -> Iterator[Refusal]:
    """transformers 5 keeps RoPE's settings in the dict ``rope_parameters``, which verl's override cannot reach."""
    # Megatron's configs nest them once more (HFModelConfig).
    for section in (f"{MODEL}.override_config", f"{MODEL}.override_config.model_config"):
        for key in ROPE_KEYS:
            if _setting(config, f"{section}.{key}") is not None:
                effect = (
                    "has no effect: transformers 5 reads the dict rope_parameters instead"
                    if key == "rope_theta"
                    else "stops verl, which sets attributes where transformers 5 has a dict"
                )
                yield Refusal(
                    f"{section}.{key}",
                    f"{section}.{key}={_setting(config, f'{section}.{key}')} {effect}. Leave it out, and change {key} "
                    "in the config.json of a copy of the model, which trainer, rollout and evaluation then share.",
                )


def _unknown_names(config: DictConfig) -> Iterator[Refusal]:
    """verl looks both up at the first update, after the first rollouts."""
    for key, registry in ((ESTIMATOR, ADV_ESTIMATOR_REGISTRY), (LOSS_MODE, POLICY_LOSS_REGISTRY)):
        name = str(_setting(config, key))
        if name not in registry:
            known = ", ".join(sorted(str(getattr(one, "value", one)) for one in registry))
            yield Refusal(
                key,
                f"{key}={name} is not known. Known: {known}. The presets that set it are listed by: verl-ispo methods",
            )


def _trainer_settings(config: DictConfig) -> Iterator[Refusal]:
    """What `ISPOTrainerConfig` refuses."""
    try:
        ISPOTrainerConfig.from_mapping(_setting(config, "trainer.v1.ispo"))
    except ValueError as error:
        yield Refusal("trainer.v1.ispo", str(error))


def _contradictions(config: DictConfig) -> Iterator[Refusal]:
    """Pairs of settings, one of which makes the other void or reverses it."""

    def setting(key: str) -> object:
        return _setting(config, key)

    def refusal(pair: Contradiction) -> Refusal:
        first, second = f"{pair.first}={setting(pair.first)}", f"{pair.second}={setting(pair.second)}"
        return Refusal(pair.first, f"{first} and {second} contradict each other: {pair.why}. {pair.remedy}")

    estimator, loss_mode = setting(ESTIMATOR), setting(LOSS_MODE)
    for name, method in methods().items():
        if method.token_loss is not None and (estimator == name) != (loss_mode == name):
            why = f"{name} is an advantage and a policy loss together"
            yield refusal(Contradiction(ESTIMATOR, LOSS_MODE, why, f"Set both, as method={name} does, or neither."))
        # ISPO's signals are computed and logged under other estimators too
        if name != "ispo" and setting(f"{ALGORITHM}.{name}") is not None and estimator != name:
            why = f"only adv_estimator={name} reads that section"
            remedy = f"Set method={name}, or leave the section out."
            yield refusal(Contradiction(ESTIMATOR, f"{ALGORITHM}.{name}", why, remedy))
    method = method_of(estimator)
    if method is not None and method.contradictions is not None:
        yield from map(refusal, method.contradictions(setting))

    buffer_key, length_key = "reward.reward_kwargs.overlong_buffer_cfg.len", "data.max_response_length"
    if setting("reward.reward_kwargs.overlong_buffer_cfg.enable"):
        buffer_length, response_length = setting(buffer_key), setting(length_key)
        if not 0 < buffer_length <= response_length:
            why = "DAPO's length penalty begins that many tokens before the end of the response"
            remedy = f"Set {buffer_key} to a fifth of it ({max(1, response_length // 5)})."
            yield refusal(Contradiction(buffer_key, length_key, why, remedy))

"""What differs from the settings that the ISPO paper (arXiv 2606.08815) names, compared with the composed preset."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.preflight.composition import setting
from verl_ispo.preflight.finding import NOTE, OK, Finding

# Training settings that the paper states; the rest it leaves open.
PAPER_KEYS = (
    "data.train_batch_size",
    "data.max_response_length",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.optim.optimizer",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.use_kl_loss",
    "algorithm.use_kl_in_reward",
    "algorithm.adv_estimator",
    "algorithm.norm_adv_by_std_in_grpo",
    *(f"algorithm.ispo.{name}" for name in ISPOConfig().to_dict()),
)
# The paper's base model whose responses may be longer than the preset's 4096 tokens.
LONGER_RESPONSES = {"Qwen2.5-7B": 8192}


def check_paper_settings(config: DictConfig, preset: DictConfig) -> Iterator[Finding]:
    """The keys that the paper names and this run changes.

    Args:
        config (`DictConfig`): the composed config.
        preset (`DictConfig`): composed with the same preset and nothing else.
    """
    settings = ISPOConfig.from_mapping(setting(config, "algorithm.ispo"))
    ours = {key: value for key, value in settings.to_dict().items() if value != getattr(ISPOConfig(), key)}
    yield Finding(OK, "algorithm.ispo", str(ours or "as in the paper"))
    changed = False
    for key in PAPER_KEYS:
        here, there = setting(config, key), setting(preset, key)
        if key == "data.max_response_length":
            there = LONGER_RESPONSES.get(
                str(setting(config, "actor_rollout_ref.model.path")).rstrip("/").split("/")[-1], there
            )
        if here != there:
            changed = True
            yield Finding(NOTE, key, f"is {here}; the paper's, or the preset's, is {there}")
    if not changed:
        yield Finding(OK, "paper's settings", "as in the preset, wherever the paper names one")

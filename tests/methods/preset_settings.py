"""What a preset makes of a method of the registry, and the method's reference under tests/methods/references.

A reference is the rule in plain Python loops over numbers, float64, written from the formula and not from the method.
It imports nothing of `verl_ispo.methods` but the types of the batches. ``references/NAME.py`` holds

- ``advantage(batch, settings)``: from a `MethodBatch` to one list of advantages per rollout, one number per position of
  the response, 0 where the mask is 0. A rule per rollout repeats its number on the rollout's tokens.
- ``token_loss(batch, settings)``, for a method with a policy loss: from a `LossBatch` to the loss before aggregation,
  in the same layout. A rule that holds a factor constant takes a third argument ``point``, the `LossBatch` at which
  that factor is computed: ``batch`` itself, except where finite differences move ``batch`` and not ``point``.
- ``keeps(batch, settings)``, for a method that leaves rollouts or tokens out of the loss: whether each token stays.
- where it applies, a sentence that says why: ``ORDER_IS_PART_OF_THE_RULE``, ``MICRO_BATCH_IS_PART_OF_THE_RULE``.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Any

from tests.methods.twenty_batches import prefix_scores
from verl_ispo.method_presets import method_names, read_preset
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.methods.registry import method_of

FIELDS_OF_NEEDS = {
    Need.CORRECT: ("correct",),
    Need.LOG_PROB: ("log_prob",),
    Need.ENTROPY: ("entropy",),
    Need.PROMPT_LOG_PROB: ("prompt_log_prob", "prompt_mask"),
    Need.ANSWER_TEXT: ("answer_texts",),
    Need.GRPO_ADVANTAGE: ("grpo_advantage",),
    Need.ISPO_SIGNALS: ("ispo_signals",),
    Need.REFERENCE_LOG_PROB: ("ref_log_prob",),
    Need.RESPONSE_IDS: ("response_ids",),
    Need.PROMPT_KEY: ("prompt_keys",),
    Need.EXPERT: ("expert",),
    Need.PREFIX_SCORES: ("prefix_scores",),
}
# What a preset's value refers to, in a batch whose longest response has 200 tokens.
OTHER_KEYS = {"${data.max_response_length}": 200}
ALWAYS_THERE = {"rewards", "response_mask", "groups", "normalize_by_std", "step", "total_steps", "state"}


@dataclass(frozen=True)
class PresetSettings:
    """One preset of a method that has a reference.

    Attributes:
        method: of the registry.
        settings: of ``algorithm.<method>``, checked.
        normalize_by_std: verl's ``norm_adv_by_std_in_grpo``.
        reference: the method's module under tests/methods/references.
    """

    method: Method
    settings: Any
    normalize_by_std: bool
    reference: ModuleType

    def given(self, batch: MethodBatch) -> MethodBatch:
        """A batch with the scores behind the method's cuts, and with the state before the first step."""
        cuts = self.method.prefix_cuts
        scores = cuts and prefix_scores(batch, lambda request: cuts.positions(request, self.settings))
        return replace(batch, prefix_scores=scores, state=self.method.state and self.method.state.kind())

    def declared(self, batch: MethodBatch) -> MethodBatch:
        """A batch with what the method has declared as a need and nothing else, as the trainer hands it over."""
        kept = ALWAYS_THERE.union(*(FIELDS_OF_NEEDS[need] for need in self.method.needs))
        return replace(batch, **{part.name: None for part in fields(batch) if part.name not in kept})

    def says(self, name: str) -> str | None:
        """A sentence of the reference, such as ``ORDER_IS_PART_OF_THE_RULE``; `None` where it has none."""
        return getattr(self.reference, name, None)


def reference_of(method: str) -> ModuleType | None:
    """The module of a method's reference; `None` where there is none."""
    name = f"tests.methods.references.{method}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def presets_with_reference() -> dict[str, PresetSettings]:
    """All presets whose estimator is a method with a reference, by name."""
    found = {}
    for name in method_names():
        changes = read_preset(name).changes
        method = method_of(changes.get("algorithm.adv_estimator"))
        reference = None if method is None else reference_of(method.name)
        if reference is not None:
            section = f"algorithm.{method.name}."
            own = {
                key.removeprefix(section): OTHER_KEYS.get(str(value), value)
                for key, value in changes.items()
                if key.startswith(section)
            }
            by_std = bool(changes.get("algorithm.norm_adv_by_std_in_grpo", True))
            found[name] = PresetSettings(method, method.read_settings(own), by_std, reference)
    return found

"""Each method's rule in plain Python loops over numbers, float64, written from the formula and not from the method.

One module per method, named as in the registry; none imports `verl_ispo.methods` but for the types of the batches.

- ``advantage(batch, settings)``: from a `MethodBatch` to one list of advantages per rollout, one number per position of
  the response, 0 where the mask is 0. A rule per rollout repeats its number on the rollout's tokens.
- ``token_loss(batch, settings)``, for a method with a policy loss: from a `LossBatch` to the loss before aggregation,
  in the same layout. A rule that holds a factor constant takes a third argument ``point``, the `LossBatch` at which
  that factor is computed: `batch` itself, except where finite differences move `batch` and not `point`.

`tests/methods/test_against_references.py` holds every method against its own.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


def reference_of(method: str) -> ModuleType | None:
    """The module of a method's reference; `None` where there is none."""
    name = f"{__name__}.{method}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None

"""Megatron on a CPU with gloo, for tests alone: an import hook in front of the package ``megatron``.

What it changes of Megatron's sources while they are imported, and nothing else:

- the literals "cuda" and "torch.cuda.FloatTensor" become "cpu" and "torch.FloatTensor", and nothing is pinned;
- Megatron-Bridge imports packages for GPUs that a dense text model never calls; it gets empty stand-ins under names of
  their own, since megatron-core asks for some of these packages and would take a stand-in for the real one;
- three lines of the distributed optimizer, which know the optimizers of Apex and Transformer Engine and not torch's
  own, and one that asks for Transformer Engine's version (`EDITS`). Each must be found, so that another version stops
  here instead of training something else.

Before the first import of Megatron, `torch_cuda_on_cpu` maps the calls of ``torch.cuda`` that it makes on the way; and
`transformer_engine_in_torch` gives the layers of Transformer Engine in plain torch.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import sys
import types
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

TRANSFORMER_ENGINE = "megatron.core.extensions.transformer_engine"
GPU_PACKAGES = "modelopt|nvidia_resiliency_ext|transformer_engine|triton"
STAND_IN = "stand_in_for_"
# Parts of megatron-core that import these outright once Transformer Engine is said to be there.
OUTRIGHT = (
    "megatron.core.transformer.moe.experts",
    "megatron.core.transformer.moe.ops.paged_stash",
    "megatron.core.transformer.moe.paged_stash",
    "megatron.core.transformer.moe.shared_experts",
    "megatron.core.post_training.modelopt.",
)
LITERALS = (
    (re.compile(r"""(["'])cuda\1"""), '"cpu"'),
    (re.compile(r"""(["'])torch\.cuda\.(\w+Tensor)\1"""), r'"torch.\2"'),
    (re.compile(r"\bpin_memory=True\b"), "pin_memory=False"),
)
EDITS = {
    "megatron.core.optimizer.distrib_optimizer": (
        # torch's AdamW has no state before its first step, and a checkpoint is loaded before that
        ('inner_state_dict["state"].values()]))', 'inner_state_dict["state"].values()] or [0]))'),
        # the step, which comes from the parameter groups, is not to be overwritten by the empty template's
        (
            "if not isinstance(tensors[key], torch.Tensor):",
            'if key == "step" or not isinstance(tensors[key], torch.Tensor):',
        ),
        # a counter for each parameter: torch's counts in place
        ('s["step"] = step\n', 's["step"] = step.clone()\n'),
    ),
    "megatron.bridge.peft.utils": (
        # asked for under LoRA with sequence parallelism
        ('version("transformer-engine")', '"2.0.0"'),
    ),
}
# Compiled code is kept beside the sources, which only processes with this hook import; this tells it from older hooks'.
HOOK = zlib.crc32(Path(__file__).read_bytes())


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module of Megatron with the changes above."""

    def path_stats(self, path: str) -> Mapping[str, float]:
        found = super().path_stats(path)
        return {**found, "mtime": int(found["mtime"]) ^ HOOK}

    def source_to_code(self, data: bytes, path: str, *, _optimize: int = -1) -> types.CodeType:
        text = importlib.util.decode_source(data)
        for pattern, replacement in LITERALS:
            text = pattern.sub(replacement, text)
        in_bridge = self.name.startswith("megatron.bridge.")
        if in_bridge or self.name.startswith(OUTRIGHT):
            # in the bridge only imports at the margin: what is indented stands in a try
            at = "" if in_bridge else r"\s*"
            text = re.sub(rf"^({at}import )({GPU_PACKAGES})$", rf"\1{STAND_IN}\2 as \2", text, flags=re.MULTILINE)
            text = re.sub(rf"^({at}(?:import|from) )({GPU_PACKAGES})\b", rf"\1{STAND_IN}\2", text, flags=re.MULTILINE)
        for old, new in EDITS.get(self.name, ()):
            if text.count(old) != 1:
                raise ImportError(f"{path}: {old!r} stands there {text.count(old)} times; this is another version")
            text = text.replace(old, new)
        return super().source_to_code(text.encode(), path, _optimize=_optimize)

    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        if module.__name__ == TRANSFORMER_ENGINE:
            import transformer_engine_in_torch

            transformer_engine_in_torch.put_into(module)


class _AnyAttribute(type):
    """Classes that have every attribute, each such a class again, and whose instances do nothing."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _class_named(name)


def _class_named(name: str) -> type:
    def nothing(*_: object, **__: object) -> None:
        return None

    return _AnyAttribute(name, (), {"__init__": nothing, "__call__": nothing})


class _StandIn(types.ModuleType):
    """A module that has every name, each a class."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        value = (lambda *_, **__: False) if name == "is_quantized" else _class_named(name)
        setattr(self, name, value)
        return value


class _StandInLoader(importlib.machinery.SourceFileLoader):
    """A source loader, since torch looks for one."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "<stand-in>")

    def is_package(self, fullname: str) -> bool:
        return True

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        top = fullname.partition(".")[0]
        if top.startswith(STAND_IN):
            return importlib.machinery.ModuleSpec(fullname, _StandInLoader(fullname), is_package=True)
        if top != "megatron":
            return None
        import torch_cuda_on_cpu

        torch_cuda_on_cpu.put_in_place()
        spec = super().find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Put the hook in place, once; nothing is imported yet."""
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    if not any(finder is _Finder for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder)

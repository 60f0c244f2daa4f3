"""verl's platform interface on a CPU."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _peak_resident_bytes(*_: Any) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_module() -> ModuleType:
    """``torch.cpu`` with the calls that verl expects of a device module.

    Memory figures are the process's peak resident set, the nearest thing a CPU has to an allocator's counters.
    """
    module = ModuleType("verl_ispo.cpu.device_module")
    module.__dict__.update({name: getattr(torch.cpu, name) for name in torch.cpu.__all__})
    module.__dict__.update(
        empty_cache=lambda: None,
        ipc_collect=lambda: None,
        set_device=lambda *_: None,
        get_rng_state=torch.get_rng_state,
        set_rng_state=torch.set_rng_state,
        memory_allocated=_peak_resident_bytes,
        memory_reserved=_peak_resident_bytes,
        max_memory_allocated=_peak_resident_bytes,
        max_memory_reserved=_peak_resident_bytes,
        mem_get_info=lambda *_: (
            os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        ),
        get_device_name=lambda *_: "cpu",
    )
    return module


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """CPU as verl's device. Chosen by ``VERL_PLATFORM=cpu`` only.

    Raises:
        RuntimeError: the process sees a CUDA GPU.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            raise RuntimeError(
                "VERL_PLATFORM=cpu asks for verl_ispo's CPU back end, but this process sees "
                f"{torch.cuda.device_count()} CUDA device(s). Unset VERL_PLATFORM to train on them, or hide them with "
                "CUDA_VISIBLE_DEVICES='' if you do mean the CPU."
            )
        self._device_module = _device_module()

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return self._device_module

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # Detection also runs in CPU-only processes of GPU clusters, so it must never find this platform.
        return False

    def current_device(self) -> torch.device:
        # verl hands this to Tensor.to(); an index such as 0 would mean the first CUDA device there.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        return None

    def synchronize(self, device_index: int | None = None) -> None:
        return None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        return None

    def profiler_stop(self) -> None:
        return None

    def ray_resource_name(self) -> str:
        # verl counts only "GPU" and "NPU" when it checks a resource pool; ray_init.num_gpus gives logical ones.
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None

"""How long an evaluation sampled, and on how many GPUs: ``timing.jsonl`` in its folder.

One line for each batch of responses that was finished: ``seconds`` since the one before it (for the first, since the
model was loaded), ``responses``, ``device`` (``cpu``, the GPU's name, or `null` behind a server) and ``gpus`` (0 on a
CPU, `null` behind a server). Apart from the manifest, which is the same however often an evaluation was interrupted:
times are not. What a kill cut off is missing, and loading the model is not in it; engines that Ray starts
(``--replicas``) load within the first batch's time.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

TIMING_NAME = "timing.jsonl"


@dataclass(frozen=True)
class SamplingTime:
    """What a folder's lines add up to.

    Attributes:
        responses: how many of the evaluation's responses have a time.
        seconds: of sampling and grading, by the clock.
        gpu_seconds: seconds times GPUs; `None` where a line does not know the GPUs; 0 on a CPU.
        devices: names, in the order of their first use; `None` for one that is not known.
    """

    responses: int
    seconds: float
    gpu_seconds: float | None
    devices: tuple[str | None, ...]


def device_name(gpus: int | None) -> str | None:
    """Name of what samples; `None` behind a server.

    Args:
        gpus (`int` or `None`): 0 on a CPU, `None` behind a server.
    """
    if gpus is None:
        return None
    if gpus == 0:
        return "cpu"
    if os.environ.get("RAY_ADDRESS"):
        return "GPUs of a cluster"
    try:
        # asks the driver: torch would make a CUDA context in this process, beside the engine's
        from vllm.platforms import current_platform

        return str(current_platform.get_device_name())
    except Exception:  # no evaluation should end for want of a name
        return "GPU"


@dataclass
class SamplingClock:
    """Adds a line for each batch.

    Args:
        folder (`Path`): of the evaluation.
        device (`str` or `None`): see `SamplingTime`.
        gpus (`int` or `None`): of all replicas together.
    """

    folder: Path
    device: str | None
    gpus: int | None
    _last: float = field(default_factory=time.monotonic)

    def batch(self, responses: int) -> None:
        """A batch is finished and kept."""
        now = time.monotonic()
        line = {
            "seconds": round(now - self._last, 3),
            "responses": responses,
            "device": self.device,
            "gpus": self.gpus,
        }
        self._last = now
        with (self.folder / TIMING_NAME).open("a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")


def read_timing(folder: Path) -> SamplingTime | None:
    """The sum of a folder's lines; `None` without any, as in the folders of earlier versions.

    A line that cannot be read, such as one that a kill cut off, is left out; its responses then have no time.
    """
    path = folder / TIMING_NAME
    if not path.is_file():
        return None
    found = SamplingTime(0, 0.0, 0.0, ())
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            responses, seconds, gpus = int(entry["responses"]), float(entry["seconds"]), entry["gpus"]
            device = None if entry["device"] is None else str(entry["device"])
            gpu_seconds = None if gpus is None else int(gpus) * seconds
        except (ValueError, KeyError, TypeError):
            continue
        known = found.gpu_seconds is not None and gpu_seconds is not None
        found = SamplingTime(
            found.responses + responses,
            found.seconds + seconds,
            found.gpu_seconds + gpu_seconds if known else None,
            tuple(dict.fromkeys([*found.devices, device])),
        )
    return found if found.devices else None

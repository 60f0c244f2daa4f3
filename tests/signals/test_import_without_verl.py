"""The maths needs torch and nothing of verl: shown in a process that cannot import verl, Ray, transformers or
tensordict.

Not exercised: an environment in which they are not installed at all.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import verl_ispo

PROGRAM = """
import sys

class Forbidden:
    names = {"verl", "ray", "transformers", "tensordict", "transfer_queue", "hydra", "omegaconf"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is forbidden here", name=name)

sys.meta_path.insert(0, Forbidden())

import torch
from verl_ispo import ISPOConfig, compute_ispo_reward

for module in ("groups", "diagnostics", "answer_span"):
    __import__(f"verl_ispo.signals.{module}")

row = torch.tensor([[-0.5, -1.0]])
out = compute_ispo_reward(
    score=torch.ones(1), correct=torch.ones(1, dtype=torch.bool),
    log_prob=row, ref_log_prob=row - 1, entropy=-row, response_mask=torch.ones(1, 2),
    answer_log_prob=row, ablated_answer_log_prob=row - 0.5, answer_mask=torch.ones(1, 2, dtype=torch.bool),
    config=ISPOConfig())
assert not Forbidden.names & set(sys.modules)
print(out.total.item(), out.ifd.item(), out.token_reward.item(), out.critical_mask.tolist())
"""


def test_the_public_face_works_without_verl() -> None:
    """One of two tokens is critical, the second: R = 1 + 0.5 * 0.5 + 0.1 * -1 = 1.15."""
    root = Path(verl_ispo.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, cwd=root)
    assert done.returncode == 0, done.stderr
    total, ifd, token_reward, *mask = done.stdout.split(maxsplit=3)
    assert abs(float(total) - 1.15) < 1e-6
    assert (float(ifd), float(token_reward), mask) == (0.5, -1.0, ["[[False, True]]\n"])

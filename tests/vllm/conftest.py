"""What the tests with vLLM's CPU build share; without it, test_environment alone is collected, and says so."""

from __future__ import annotations

import importlib.util
import os

from tests.training.conftest import forking, tiny_task, train  # noqa: F401  fixtures

IS_INSTALLED = importlib.util.find_spec("vllm") is not None

collect_ignore_glob = [] if IS_INSTALLED else ["test_[!e]*.py"]

if IS_INSTALLED:
    # for engines in this process's children; a training gets it from its configuration
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    # pytest's process has threads, which a fork does not have
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"

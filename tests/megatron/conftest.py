"""Without Megatron's folder nothing is collected here but the test that says so."""

from __future__ import annotations

from tests.megatron.environment import megatron_folder

collect_ignore_glob = [] if megatron_folder() else ["test_engine.py", "test_checkpoints.py", "test_training.py"]

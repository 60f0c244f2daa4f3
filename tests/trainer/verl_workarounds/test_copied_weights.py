"""Weights put aside do not change with the model, on whichever device it is.

Derivation: verl saves, trains, saves again, restores the first and then the second. What goes wrong in general: a save
that is the model's own memory holds the later weights, and a restore through it undoes an update. That the separate
asynchronous mode compares its rollouts with the weights that they are of is in tests/training/test_training.py.
"""

from __future__ import annotations

import torch

from verl_ispo.trainer.verl_workarounds.copied_weights import SavedShards, without_shared_memory


def saved(module: torch.nn.Module) -> SavedShards:
    """As verl saves shards."""
    return {name: (param.detach().cpu(), name) for name, param in module.named_parameters()}, "all"


def restore(module: torch.nn.Module, shards: SavedShards) -> None:
    """As verl restores them, in place."""
    with torch.no_grad():
        for name, param in module.named_parameters():
            param.copy_(shards[0][name][0])


def test_neither_a_save_nor_a_restore_changes_another_save() -> None:
    module = torch.nn.Linear(3, 2)
    values = []
    saves = []
    for step in range(2):
        with torch.no_grad():
            module.weight.add_(step)
        values.append(module.weight.detach().clone())
        saves.append(without_shared_memory(saved(module), module))
    for step in (0, 1, 0):
        restore(module, saves[step])
        assert torch.equal(module.weight, values[step])
    assert [spec for _, spec in saves[0][0].values()] == ["weight", "bias"]
    assert saves[0][1] == "all"


def test_what_is_a_copy_already_is_not_copied_again() -> None:
    module = torch.nn.Linear(3, 2)
    copies = {name: (param.detach().clone(), None) for name, param in module.named_parameters()}
    kept, _ = without_shared_memory((copies, None), module)
    assert all(kept[name][0] is copies[name][0] for name in copies)

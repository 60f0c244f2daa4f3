"""Errors of the pure maths: shapes that do not fit, and numbers that are not finite."""

from __future__ import annotations

import torch


class SignalShapeError(ValueError):
    """Tensors whose shapes contradict each other; the message lists them all."""


class NonFiniteSignalError(ValueError):
    """NaN or infinity at a position that counts.

    Attributes:
        field: name of the tensor.
        row: first row in which it happens.
        position: first position of that row.
    """

    def __init__(self, field: str, row: int, position: int, value: float) -> None:
        self.field, self.row, self.position, self.value = field, row, position, value
        super().__init__(
            f"{field} is {value} at row {row}, position {position}: log-probs and entropies must be finite"
        )

    def __reduce__(self) -> tuple[type, tuple[str, int, int, float]]:
        # Exceptions are unpickled from their message by default, which is not what __init__ takes; Ray pickles them.
        return type(self), (self.field, self.row, self.position, self.value)


def check_same_shape(expected: tuple[int, ...], **tensors: torch.Tensor) -> None:
    """Raise `SignalShapeError` unless every tensor has the shape ``expected``."""
    if any(tuple(tensor.shape) != expected for tensor in tensors.values()):
        found = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise SignalShapeError(f"shapes do not fit: expected {expected} for each of {found}")


def check_finite(mask: torch.Tensor, **tensors: torch.Tensor) -> None:
    """Raise `NonFiniteSignalError` for the first NaN or infinity where ``mask`` is true; other positions are free."""
    for name, tensor in tensors.items():
        # A sum with a NaN or an infinity in it is none of the finite numbers, so most tensors need one pass.
        if tensor.is_floating_point() and torch.isfinite(tensor.sum()):
            continue
        bad = ~torch.isfinite(tensor) & mask
        if bad.any():
            row, position = (int(i) for i in bad.reshape(bad.shape[0], -1).nonzero()[0])
            value = float(tensor.reshape(tensor.shape[0], -1)[row, position])
            raise NonFiniteSignalError(name, row, position, value)

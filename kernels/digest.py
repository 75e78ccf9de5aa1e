"""Digests of tensors: which values they hold, whatever order or device they come in.

The digest of a set of tensors is the SHA-256 over its lines, sorted: `name dtype [shape] sha256-of-the-bytes`. So it
can be taken of a stream, tensor by tensor, and nothing needs to be held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


class Digest:
    """Takes named tensors in any order."""

    def __init__(self, salt: str = "") -> None:
        """`salt` is what else the digest shall depend on."""
        self._salt = salt
        self._lines: list[str] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """One tensor: its name, dtype, shape and bytes."""
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        self._lines.append(f"{name} {tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}\n")

    def hexdigest(self) -> str:
        """SHA-256 (hex) of all that was added."""
        return hashlib.sha256("".join([self._salt, *sorted(self._lines)]).encode()).hexdigest()


def tensors_digest(named: Iterable[tuple[str, Tensor]], salt: str = "") -> str:
    """The digest of all of `named`."""
    digest = Digest(salt)
    for name, tensor in named:
        digest.add(name, tensor)
    return digest.hexdigest()

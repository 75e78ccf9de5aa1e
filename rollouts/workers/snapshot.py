"""A policy as it travels: taken once a publication, put into the object store, shared by all workers of a node."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...parts import UserError
from ...records import Policy


@dataclass
class Snapshot:
    """What an engine needs of a policy at one moment, in the one form that it asked for; see `records.Policy`.

    Its tensors are bytes to pickle, which Ray hands to every worker of a node from the same memory: what arrives is
    read-only. Until it is pickled it may share memory with the policy that it was taken of. The tokenizer does not
    travel; whoever receives a snapshot has its own.
    """

    number: int
    model_config: Any
    sha256: str
    peft: dict[str, Any] | None
    """PEFT's configuration, where the tensors are an adapter's; None where they are effective weights."""
    tensors: dict[str, Tensor]
    tokenizer: Any = None

    @classmethod
    def of(cls, policy: Policy, form: Literal["adapter", "weights"]) -> Snapshot:
        """Take one of `policy`.

        Raises:
            UserError: an adapter is asked for, and the policy has no PEFT form.
        """
        if form == "weights":
            return cls(policy.number, policy.model_config, policy.digest(), None, dict(policy.weights()))
        adapter = policy.adapter()
        if adapter is None:
            raise UserError(
                "this policy has no PEFT form, and the engine takes adapters only; let the engine take whole weights, "
                "or choose another learner.adapter"
            )
        config, tensors = adapter
        return cls(policy.number, policy.model_config, policy.digest(), config, dict(tensors))

    def digest(self) -> str:
        """The policy's, as it was when this was taken."""
        return self.sha256

    def adapter(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """PEFT's configuration and state dict; None where the effective weights travel."""
        return None if self.peft is None else (self.peft, self.tensors)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The effective weights by the base's parameter names.

        Raises:
            UserError: an adapter travels.
        """
        if self.peft is not None:
            raise UserError("the engine asked for an adapter and reads whole weights; its form() must say weights")
        return iter(self.tensors.items())

    def __reduce__(self) -> tuple[Any, ...]:
        packed = {name: _pack(tensor) for name, tensor in self.tensors.items()}
        return _unpickled, (self.number, self.model_config, self.sha256, self.peft, packed)


_Packed = tuple[np.ndarray, str, tuple[int, ...]]
"""A tensor's bytes (uint8), its dtype's name and its shape: numpy has no bfloat16."""


def _pack(tensor: Tensor) -> _Packed:
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy(), str(plain.dtype).removeprefix("torch."), tuple(plain.shape)


def _unpack(packed: _Packed) -> Tensor:
    data, dtype, shape = packed
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(data).view(getattr(torch, dtype)).reshape(shape)


def _unpickled(
    number: int, model_config: Any, sha256: str, peft: dict[str, Any] | None, packed: dict[str, _Packed]
) -> Snapshot:
    return Snapshot(number, model_config, sha256, peft, {name: _unpack(one) for name, one in packed.items()})

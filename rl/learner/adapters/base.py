"""What every adapter is: how a model is parameterised for training, and in which forms the result is exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ....parts import Part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..dropout import Dropout


class Adapter(Part):
    """Options of one parameterisation. The model it attaches to is passed in again by whoever holds it."""

    merges: ClassVar[bool] = True
    """Whether the effective weights can be had: not of a base that is stored quantised."""

    def load_options(self) -> dict[str, Any]:
        """Extra arguments for transformers' `from_pretrained` (quantisation)."""
        return {}

    def attach(self, model: nn.Module, seed: int, start: Path | None) -> nn.Module:
        """The model with exactly its trained parameters requiring gradients; `start` is a saved adapter's folder.

        Raises:
            UserError: the model has no place for this adapter, or `start` does not fit.
        """
        raise NotImplementedError

    def linears(self, modules: Sequence[nn.Module], x_TH: Tensor, dropout: Dropout | None) -> list[Tensor]:
        """Each of several linear modules applied to the same input; overridden where one pass can serve them all.

        The input may be wider than the weights; results have its dtype.
        """
        from ..lora_linear import apply_plain

        return [apply_plain(module, x_TH) for module in modules]

    def off(self, model: nn.Module) -> AbstractContextManager[Any] | None:
        """A context in which the model is its base (the reference policy); None where it cannot be had so."""
        return None

    def peft(self, model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """PEFT's configuration and state dict, or None where there is no PEFT form."""
        return None

    def base_weights(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """The model's own parameters by the base's names, without what the adapter added."""
        return model.named_parameters()

    def weights(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Effective weights by the base's parameter names and in its dtypes, one at a time."""
        raise NotImplementedError

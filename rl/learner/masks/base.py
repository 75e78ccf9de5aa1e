"""What every mask is: which weights of a full-parameter run are trained. All others keep every bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from ....parts import Part, UserError

if TYPE_CHECKING:
    from torch import Tensor


class Mask(Part):
    """Chosen once, when a run begins, and kept in its folder as compressed bitmaps."""

    def choose(self, base: Mapping[str, Tensor], seed: int) -> dict[str, Tensor] | None:
        """Boolean tensors by the names of the model's weights; None trains all.

        Raises:
            UserError: the run that it is to be taken from is not there, or is of another model.
        """
        raise NotImplementedError


class Sized(Mask):
    """A mask that is as large as that of another run, or of a given density."""

    run: str | None = None
    """A run (RUN, RUN@STEP): as many weights as it changed."""
    density: float | None = Field(default=None, gt=0, le=1)
    """In place of a run: this share of all weights."""
    matched: bool = True
    """As many in each tensor as the run changed there, or the density asks; else as many in all, anywhere."""
    tolerance: float = Field(default=0.0, ge=0)
    """Weights of the run that moved further than this count as changed."""
    dtype: Literal["stored", "float32"] = "stored"
    """Whether it changed by its stored weights, or in float32 before rounding."""

    @model_validator(mode="after")
    def _one_size(self) -> Sized:
        if (self.run is None) == (self.density is None):
            raise ValueError("give either run or density")
        return self

    def sizes(self, base: Mapping[str, Tensor]) -> dict[str, int]:
        """How many weights of each tensor a matched mask holds."""
        if self.run is None:
            assert self.density is not None
            return {name: round(self.density * tensor.numel()) for name, tensor in base.items()}
        return {name: int(mask.sum()) for name, mask in changed_by(self.run, base, self.tolerance, self.dtype)}


def changed_by(
    run: str, base: Mapping[str, Tensor], tolerance: float, dtype: Literal["stored", "float32"]
) -> Iterator[tuple[str, Tensor]]:
    """The weights that `run` changed since its model, as boolean tensors by name.

    Raises:
        UserError: there is no such run, or it is of another model than `base`.
    """
    from ...updates.overlap import changed
    from ...updates.sources import open_pair

    began, ended = open_pair(run, None)
    if {name: kept.shape for name, kept in began.kept.items()} != {name: tuple(t.shape) for name, t in base.items()}:
        raise UserError(f"learner.mask: the run {run} is of another model; take a run of this one")
    for name in base:
        first = began.read(name)
        if dtype == "float32" and ended.has_deltas:
            delta = ended.delta(name, first)
            assert delta is not None
            yield name, delta.abs() > tolerance
        else:
            yield name, changed(first, ended.read(name), tolerance)

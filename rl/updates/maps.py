"""The update map: what changed between two models, tensor by tensor, in one pass over both as they stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...kernels import delta as kernel
from ...kernels.gpu.device import takes
from ...parts import UserError
from .change import Change, change_of, swallowed, total
from .modules import KINDS, kind_of, layer_of
from .spectra import Spectrum, spectrum
from .weights import DTYPES, Weights

if TYPE_CHECKING:
    import pandas

Form = Literal["stored", "float32"]
SLAB = 2**22
"""Elements that a thread compares at once."""


@dataclass(frozen=True)
class TensorUpdate:
    """What changed in one tensor."""

    name: str
    layer: int | None
    kind: str
    shape: tuple[int, ...]
    dtype: str
    """In which the stored weights were compared: the narrower one where the two differ."""
    stored: Change
    float32: Change | None
    """Before rounding to the stored dtype, where that is known: from masters, or an adapter's product."""
    spectrum: Spectrum | None = None
    """Of the difference of the stored weights."""
    spectrum_float32: Spectrum | None = None

    def change(self, form: Form) -> Change:
        """In one of the two forms; float32 falls back on what is stored where nothing more is known."""
        return self.float32 if form == "float32" and self.float32 is not None else self.stored


@dataclass(frozen=True)
class Apart:
    """A tensor that could not be compared, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class UpdateMap:
    """All tensors of two models; views of it add up what they are asked for."""

    base: str
    tuned: str
    tensors: tuple[TensorUpdate, ...]
    apart: tuple[Apart, ...]
    """Tensors of unequal shape, missing, of a dtype that is not compared: told, never skipped in silence."""
    tied: tuple[tuple[str, str], ...]
    """Names that stand for another tensor, and that tensor, which is counted once."""

    @property
    def forms(self) -> tuple[Form, ...]:
        """`stored`, and `float32` where masters or an adapter told more."""
        return ("stored", "float32") if any(tensor.float32 for tensor in self.tensors) else ("stored",)

    def total(self, form: Form = "stored") -> Change:
        """Over the whole model."""
        return total(tensor.change(form) for tensor in self.tensors)

    def by_kind(self, form: Form = "stored") -> dict[str, Change]:
        """By kind of module, in the order of `KINDS`."""
        return {kind: total(own) for kind in KINDS if (own := [t.change(form) for t in self.tensors if t.kind == kind])}

    def by_layer(self, form: Form = "stored") -> dict[int, Change]:
        """By layer; what is in no layer is left out here."""
        layers = sorted({tensor.layer for tensor in self.tensors if tensor.layer is not None})
        return {n: total(t.change(form) for t in self.tensors if t.layer == n) for n in layers}

    def by_place(self, form: Form = "stored") -> dict[tuple[int | None, str], Change]:
        """By layer and kind of module."""
        places = sorted({(t.layer, t.kind) for t in self.tensors}, key=lambda p: (p[0] is None, p[0] or 0, p[1]))
        return {p: total(t.change(form) for t in self.tensors if (t.layer, t.kind) == p) for p in places}

    def frame(self) -> pandas.DataFrame:
        """A row a tensor and form."""
        import pandas as pd

        return pd.DataFrame(rows(self))


def rows(update: UpdateMap) -> list[dict[str, Any]]:
    """A row a tensor and form, of plain values."""
    listed = []
    for tensor in update.tensors:
        for form in update.forms:
            found = tensor.spectrum if form == "stored" else tensor.spectrum_float32
            ranks = {} if found is None else _ranks(found)
            place = {"name": tensor.name, "layer": tensor.layer, "kind": tensor.kind}
            kept = {"shape": list(tensor.shape), "dtype": tensor.dtype, "form": form}
            listed.append({**place, **kept, **tensor.change(form).figures(), **ranks})
    return listed


def compare(base: Weights, tuned: Weights, *, spectra: int = 0, threads: int | None = None) -> UpdateMap:
    """The update map from `base` to `tuned`.

    Args:
        base: where the update began.
        tuned: where it ended.
        spectra: for how many matrices, the largest first, ranks and singular values are computed.
        threads: None is one a core.

    Raises:
        UserError: the two have no tensor in common.
    """
    names, apart = _common(base, tuned)
    if not names:
        raise UserError(f"{base.label} and {tuned.label} have no tensor of one name and shape; are they of one model?")
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        measured = list(_measure(base, tuned, names, pool.map))
    largest = sorted((t for t in measured if len(t.shape) > 1), key=lambda t: -t.stored.weights)
    wanted = {tensor.name for tensor in largest[:spectra]}
    measured = [_with_spectra(tensor, base, tuned) if tensor.name in wanted else tensor for tensor in measured]
    return UpdateMap(base.label, tuned.label, tuple(measured), tuple(apart), tuple(sorted(base.tied.items())))


def _common(base: Weights, tuned: Weights) -> tuple[list[str], list[Apart]]:
    """Names to compare, and all others with the reason."""
    names, apart = [], []
    for name in sorted({*base.kept, *tuned.kept}):
        one, other = base.kept.get(name), tuned.kept.get(name)
        if one is None or other is None:
            side, weights = ("base", base) if one is None else ("tuned model", tuned)
            tied = f" (there it is tied to {weights.tied[name]})" if name in weights.tied else ""
            apart.append(Apart(name, f"missing in the {side}{tied}"))
        elif one.shape != other.shape:
            apart.append(Apart(name, f"unequal shapes, {list(one.shape)} and {list(other.shape)}"))
        elif not {one.dtype, other.dtype} <= set(DTYPES):
            apart.append(Apart(name, f"dtypes {one.dtype} and {other.dtype} are not compared"))
        else:
            names.append(name)
    return names, apart


Mapped = Callable[[Callable[..., Any], Iterable[Any], Iterable[Any], Iterable[Any]], Iterable[Any]]


def _measure(base: Weights, tuned: Weights, names: list[str], mapped: Mapped) -> Iterator[TensorUpdate]:
    """Each tensor, its slabs shared among threads; a few tensors are under way at once."""
    under_way: list[tuple[str, Any]] = []
    for name in names:
        one, other = base.read(name), tuned.read(name)
        dtype = narrower(one.dtype, other.dtype)
        under_way.append((name, _start(one.to(dtype), other.to(dtype), mapped)))
        if len(under_way) > 8:
            yield _finish(*under_way.pop(0), base, tuned, mapped)
    for name, started in under_way:
        yield _finish(name, started, base, tuned, mapped)


def _start(one: Tensor, other: Tensor, mapped: Mapped) -> tuple[torch.dtype, list[np.ndarray], Iterable[Any]]:
    """Begin to compare two tensors of one dtype; columns touched are set as the slabs are done.

    On a GPU a tensor is one slab, which is done at once.
    """
    if takes(one):
        from ...kernels.gpu.delta import count

        first, second = (_rows(tensor.detach()) for tensor in (one, other))
        touched_C = first.new_zeros(first.shape[1], dtype=torch.uint8)
        counted = count(first, second, touched_C)
        return one.dtype, [touched_C.cpu().numpy()], [counted]
    a, b = _matrix(one), _matrix(other)
    height = max(1, SLAB // max(a.shape[1], 1))
    starts = range(0, a.shape[0], height)
    touched = [np.zeros(a.shape[1], np.uint8) for _ in starts]
    first, second = ([m[start : start + height] for start in starts] for m in (a, b))
    return one.dtype, touched, mapped(kernel.count, first, second, touched)


def _finish(name: str, started: Any, base: Weights, tuned: Weights, mapped: Mapped) -> TensorUpdate:
    dtype, touched, slabs = started
    counted = kernel.total(slabs)
    if not np.isfinite(counted.squares).all():
        raise UserError(f"{name} holds values that are not finite in {base.label} or {tuned.label}")
    shape = base.kept[name].shape
    stored = change_of(counted, _sides(shape), _columns(touched))
    names = {dtype: name for name, dtype in DTYPES.items()}
    update = TensorUpdate(name, layer_of(name), kind_of(name), shape, names[dtype], stored, None)
    wide = _float32_delta(name, base, tuned)
    if wide is None:
        return update
    _, touched, slabs = _start(torch.zeros_like(wide), wide, mapped)
    moved = change_of(kernel.total(slabs), _sides(shape), _columns(touched))
    swallow = swallowed(counted.binades, stored.weights, moved.squares)
    moved = replace(moved, ulps=(), base_squares=stored.base_squares, swallowed=swallow)
    return replace(update, float32=moved)


def _columns(touched: list[np.ndarray]) -> int:
    """Columns that any slab touched; a tensor without rows has no slab."""
    return int(np.count_nonzero(np.bitwise_or.reduce(touched))) if touched else 0


def _float32_delta(name: str, base: Weights, tuned: Weights) -> Tensor | None:
    """The update before it was rounded, where that is known."""
    one = base.read(name)
    if tuned.has_deltas:
        return tuned.delta(name, one)
    other = tuned.read(name)
    return None if one.dtype == other.dtype else other.float() - one.float()


def _with_spectra(tensor: TensorUpdate, base: Weights, tuned: Weights) -> TensorUpdate:
    one, other = base.read(tensor.name), tuned.read(tensor.name)
    dtype = narrower(one.dtype, other.dtype)
    stored = spectrum(_rows(other.to(dtype).float() - one.to(dtype).float()))
    wide = None if tensor.float32 is None else _float32_delta(tensor.name, base, tuned)
    return replace(tensor, spectrum=stored, spectrum_float32=None if wide is None else spectrum(_rows(wide)))


def narrower(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The dtype in which two are compared: the narrower one; float32 for float16 beside bfloat16."""
    if one == other:
        return one
    if one.itemsize == other.itemsize:
        return torch.float32
    return min(one, other, key=lambda dtype: dtype.itemsize)


def _rows(tensor: Tensor) -> Tensor:
    return tensor.reshape(_sides(tuple(tensor.shape)))


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """A vector is one row; what has more than two sides is rows of its last."""
    columns = shape[-1] if shape else 1
    return int(np.prod(shape[:-1], dtype=np.int64)), columns


def _matrix(tensor: Tensor) -> np.ndarray:
    """The stored bits, without a copy where the tensor is contiguous: float16 as itself, others unsigned."""
    flat = _rows(tensor.detach().contiguous())
    if flat.dtype == torch.float16:
        return flat.numpy()
    return flat.view(torch.uint16 if flat.dtype == torch.bfloat16 else torch.uint32).numpy()


def _ranks(found: Spectrum) -> dict[str, float]:
    return {
        "rank": found.numerical_rank,
        "rank_share": found.numerical_rank / max(found.full, 1),
        "effective_rank": found.effective_rank,
    }

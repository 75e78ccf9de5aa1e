"""An update map as files: updates.json, updates.parquet (a row a tensor and form), updates.html."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..runs.files import replacing, write_json
from ..runs.report.page import write_page
from ..runs.report.updates import updates_page
from .change import Change
from .maps import UpdateMap, rows
from .overlap import Overlaps, overlap_rows

SCHEMA = 1
"""Of updates.json; raised when a key changes its meaning."""


def tree_of(update: UpdateMap) -> dict[str, Any]:
    """An update map as plain values: what updates.json holds (docs/updates.md has its keys)."""
    return {
        "schema": SCHEMA,
        "base": update.base,
        "tuned": update.tuned,
        "total": {form: update.total(form).figures() for form in update.forms},
        "kinds": {form: _figures(update.by_kind(form)) for form in update.forms},
        "layers": {form: _figures(update.by_layer(form)) for form in update.forms},
        "places": {
            form: [
                {"layer": layer, "kind": kind, **change.figures()}
                for (layer, kind), change in update.by_place(form).items()
            ]
            for form in update.forms
        },
        "tensors": rows(update),
        "spectra": {
            tensor.name: {
                form: asdict(found)
                for form, found in (("stored", tensor.spectrum), ("float32", tensor.spectrum_float32))
                if found is not None
            }
            for tensor in update.tensors
            if tensor.spectrum is not None
        },
        "apart": [asdict(one) for one in update.apart],
        "tied": dict(update.tied),
    }


def write(update: UpdateMap, folder: Path) -> None:
    """Write the three files, each whole or not at all.

    Raises:
        RunError: the page cannot be written.
    """
    tree = tree_of(update)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "updates.json", tree)
    with replacing(folder / "updates.parquet") as temporary:
        update.frame().to_parquet(temporary)
    write_page(folder / "updates.html", updates_page(tree))


def write_overlaps(overlaps: Overlaps, folder: Path) -> None:
    """Write overlap.json and overlap.parquet: a row a pair and part."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = {"schema": SCHEMA, "tolerance": overlaps.tolerance, "apart": list(overlaps.apart)}
    write_json(folder / "overlap.json", {**listed, "pairs": overlap_rows(overlaps)})
    with replacing(folder / "overlap.parquet") as temporary:
        overlaps.frame().to_parquet(temporary)


def _figures(changes: Mapping[Any, Change]) -> dict[str, dict[str, float]]:
    return {str(key): change.figures() for key, change in changes.items()}

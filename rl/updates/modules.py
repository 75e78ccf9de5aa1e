"""Which layer and which kind of module a tensor belongs to, by its name."""

from __future__ import annotations

import re

KINDS = ("q", "k", "v", "o", "gate", "up", "down", "norm", "embedding", "head", "other")
"""In the order of tables and figures; a bias belongs to its module's kind."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
_NAMED = {
    "q": ("q_proj", "q_a_proj", "q_b_proj", "query"),
    "k": ("k_proj", "key"),
    "v": ("v_proj", "value"),
    "o": ("o_proj", "out_proj"),
    "gate": ("gate_proj",),
    "up": ("up_proj", "fc1", "c_fc"),
    "down": ("down_proj", "fc2"),
    "embedding": ("embed_tokens", "wte", "wpe", "embed_positions"),
    "head": ("lm_head", "embed_out"),
}
_KIND = {module: kind for kind, modules in _NAMED.items() for module in modules}


def layer_of(name: str) -> int | None:
    """The number of the layer, from 0; None for what is in no layer."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def kind_of(name: str) -> str:
    """One of `KINDS`."""
    parts = name.split(".")
    module = next((_KIND[part] for part in reversed(parts) if part in _KIND), None)
    if module is None and any("norm" in part or part.startswith("ln_") for part in parts):
        return "norm"
    return module or "other"

"""The plain path: transformers' own forward and cache, for architectures that the fast decoder does not know.

Rows are aligned at the right edge of one cache and padded on the left, as `generate` of transformers does it. A model
whose cache is not plain keys and values (a recurrent state, say) is decoded without one: slower, and right for all
that is causal.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...parts import RunError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prefix:
    """A prompt that was computed once: keys and values of each layer [1, head, P, D] (none without a cache), logits."""

    tokens: np.ndarray
    kv: list[tuple[Tensor, Tensor]]
    out: Tensor


class PlainDecoder:
    """Prompts one by one, rows in one batch with left padding; what `logits` takes are the logits themselves."""

    rolling = True

    def __init__(self, config: Any, dtype: torch.dtype, device: str) -> None:
        from transformers import AutoModelForCausalLM

        config = copy.deepcopy(config)
        if getattr(config, "quantization_config", None) is not None:
            del config.quantization_config
        self.device = torch.device(device)
        # Building a model draws initial weights: the run's own random state must not notice.
        with torch.random.fork_rng(devices=[]):
            self._model = AutoModelForCausalLM.from_config(config, dtype=dtype).to(self.device).eval()
        self.vocab = self._model.get_output_embeddings().weight.shape[0]
        self._takes = set(inspect.signature(self._model.forward).parameters)
        self._cached = "past_key_values" in self._takes and _holds_keys_and_values(config)
        if not self._cached:
            log.warning("decoding %s without a cache (slow): its state is not keys and values", config.model_type)
        self._kv: list[tuple[Tensor, Tensor]] = []
        self._tokens: list[list[int]] = []

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the policy's effective weights in.

        Raises:
            RunError: a tensor is missing, has another shape, or is not one of this architecture's.
        """
        slots = dict(self._model.named_parameters(remove_duplicate=False))
        filled: set[int] = set()
        with torch.no_grad():
            for name, tensor in tensors:
                if name not in slots or slots[name].shape != tensor.shape:
                    raise RunError(f"the policy's tensor {name} {tuple(tensor.shape)} does not fit its configuration")
                slots[name].copy_(tensor)
                filled.add(slots[name].data_ptr())
        missing = [name for name, slot in slots.items() if slot.data_ptr() not in filled]
        if missing:
            raise RunError(f"the policy's weights lack {missing[0]} and {len(missing) - 1} more")

    def held(self) -> Iterator[tuple[str, Tensor]]:
        """What decodes, by the policy's names."""
        return self._model.named_parameters()

    def threads(self, rows: int) -> AbstractContextManager[None]:
        """All of them."""
        return nullcontext()

    def row_bytes(self, length: int) -> int:
        """Bytes of cache that a row of `length` positions takes, as far as the configuration tells."""
        config = self._model.config.get_text_config()
        width = 2 * config.hidden_size * config.num_hidden_layers
        return width * length * self._model.dtype.itemsize

    def prefill(self, prompts: Sequence[np.ndarray]) -> list[Prefix]:
        """Compute each prompt once, by itself."""
        return [self._prefill_one(prompt) for prompt in prompts]

    def fit(self, rows: int, length: int) -> None:
        """The cache grows by itself."""

    def seat(self, rows: Sequence[int], prefixes: Sequence[Prefix]) -> None:
        """Let each row start after its prompt."""
        for row, prefix in zip(rows, prefixes, strict=True):
            if row == len(self._tokens):
                self._tokens.append([])
            self._tokens[row] = prefix.tokens.tolist()
        if not self._cached:
            return
        width = max([len(p.tokens) for p in prefixes] + [keys.shape[2] for keys, _ in self._kv[:1]])
        merged = []
        for i in range(len(prefixes[0].kv)):
            old = self._kv[i] if self._kv else (None, None)
            news = [p.kv[i] for p in prefixes]
            merged.append(
                tuple(self._merge(o, rows, n, width) for o, n in zip(old, zip(*news, strict=True), strict=True))
            )
        self._kv = merged

    def _merge(self, old: Tensor | None, rows: Sequence[int], news: Sequence[Tensor], width: int) -> Tensor:
        """Old rows and new ones [1, head, P, D] in one block [rows, head, width, D], all at its right edge."""
        block = news[0].new_zeros(len(self._tokens), news[0].shape[1], width, news[0].shape[3])
        if old is not None:
            block[: old.shape[0], :, width - old.shape[2] :] = old
        for row, new in zip(rows, news, strict=True):
            block[row, :, width - new.shape[2] :] = new[0]
        return block

    def release(self) -> None:
        """Free the rows' memory."""
        self.keep([])

    def keep(self, order: Sequence[int]) -> None:
        """Row i goes on with what row `order[i]` was."""
        self._tokens = [self._tokens[i] for i in order]
        if not self._tokens:
            self._kv = []
        elif self._kv:
            rows = torch.tensor(list(order), device=self.device)
            start = self._kv[0][0].shape[2] - max(map(len, self._tokens))
            self._kv = [(keys[rows, :, start:], values[rows, :, start:]) for keys, values in self._kv]

    def step(self, tokens_B: np.ndarray, positions_B: np.ndarray) -> Tensor:
        """Feed each row its token; logits [B, V]."""
        for row, token in zip(self._tokens, tokens_B.tolist(), strict=True):
            row.append(token)
        if not self._cached:
            return torch.cat([self._recompute(np.array(row)) for row in self._tokens])
        width = self._kv[0][0].shape[2] + 1
        lengths = torch.tensor([len(row) for row in self._tokens])
        mask = (torch.arange(width) >= width - lengths[:, None]).long()
        ids, positions = torch.from_numpy(tokens_B)[:, None], torch.from_numpy(positions_B)[:, None]
        logits, self._kv = self._forward(ids, positions, mask, self._kv)
        return logits

    def logits(self, out_BH: Tensor) -> Tensor:
        """Float32 logits [B, V]."""
        return out_BH.float()

    def _prefill_one(self, prompt: np.ndarray) -> Prefix:
        if not self._cached:
            return Prefix(prompt, [], self._recompute(prompt)[0])
        ids = torch.from_numpy(prompt)[None]
        logits, kv = self._forward(ids, torch.arange(len(prompt))[None], torch.ones_like(ids), [])
        return Prefix(prompt, kv, logits[0])

    def _forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor, kv: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The last position's logits [B, V], and the cache grown by `ids`."""
        from transformers import DynamicCache

        optional = {"position_ids": positions.to(self.device), "logits_to_keep": 1}
        result = self._model(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            past_key_values=DynamicCache(kv),
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self._takes},
        )
        return result.logits[:, -1], [(layer.keys, layer.values) for layer in result.past_key_values.layers]

    def _recompute(self, tokens: np.ndarray) -> Tensor:
        """The logits [1, V] after a whole text, from nothing."""
        keep = {"logits_to_keep": 1} if "logits_to_keep" in self._takes else {}
        ids = torch.from_numpy(tokens)[None].to(self.device)
        return self._model(input_ids=ids, use_cache=False, **keep).logits[:, -1]


def _holds_keys_and_values(config: Any) -> bool:
    """Whether each layer's past is its keys and values, as transformers' own cache for this configuration says."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layers = DynamicCache(config=config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)

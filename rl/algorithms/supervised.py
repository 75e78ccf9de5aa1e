"""Supervised learning: cross-entropy on the completions that the engine `gold` hands out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...records import Batch, Group, Row
from .advantages import token_weight
from .base import Algorithm, MicroBatch, Outputs

if TYPE_CHECKING:
    from torch import Tensor


class Supervised(Algorithm):
    """Cross-entropy, a mean over the batch's tokens. Reads no verdict and no reward, so it drops nothing."""

    def advantages(self, groups: Sequence[Group]) -> Batch:
        """One row a sample, advantage 1, weight 1/(all tokens)."""
        samples = [sample for group in groups for sample in group.samples]
        lengths_N = np.array([len(sample.tokens_T) for sample in samples], dtype=np.int64)
        rows = tuple(
            Row(
                prompt_ids=sample.prompt_ids,
                tokens_T=sample.tokens_T,
                advantage_T=np.ones(len(sample.tokens_T), dtype=np.float32),
                weight=token_weight("token", len(sample.tokens_T), lengths_N),
            )
            for sample in samples
        )
        return Batch(rows, stats={"groups/used": float(len(groups))}, compares=False)

    def loss(self, outputs: Outputs, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """−logp of each token."""
        return -(batch.weight_T * outputs.logp_T).sum(), {}

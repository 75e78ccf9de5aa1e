"""The forward pass of any transformers causal language model: blocks of rows of nearly equal length, padded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...kernels.packing import Packing
from .dropout import Dropout


class PaddedDecoder:
    """Hidden states of the same rows as `PackedDecoder` gives, through the model's own forward."""

    def __init__(self, model: nn.Module, *, checkpointing: bool) -> None:
        """Read the causal language model `model`."""
        self._model: Any = model
        if checkpointing:
            self._model.gradient_checkpointing_enable({"use_reentrant": False})

    def enter_layers(self) -> None:
        """Nothing to do: the model's own forward goes through its layers as modules."""

    def __call__(self, packing: Packing, dropout: Dropout | None) -> Tensor:
        """hidden_CH: the decoder's last hidden states at the places that predict completion tokens."""
        device = self._model.get_input_embeddings().weight.device
        self._model.train(dropout is not None)
        states, start = [], 0
        with torch.random.fork_rng(enabled=dropout is not None):
            if dropout is not None:
                torch.manual_seed(dropout.seed)
            for rows, width in packing.shapes:
                cells_RS = packing.cell_N[start : start + rows * width].reshape(rows, width)
                start += rows * width
                # Padding repeats its row's last token, and nothing else repeats.
                real_RS = np.diff(cells_RS, axis=1, prepend=-1) != 0
                output = self._model.get_decoder()(
                    input_ids=torch.from_numpy(packing.tokens_T[cells_RS]).to(device),
                    attention_mask=torch.from_numpy(real_RS.astype(np.int64)).to(device),
                    use_cache=False,
                )
                states.append(output.last_hidden_state.flatten(0, 1))
        home_C = torch.from_numpy(packing.home_T[packing.predict_C]).to(device)
        return torch.cat(states).index_select(0, home_C)

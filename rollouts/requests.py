"""What every engine refuses to sample from, said in the same words."""

from __future__ import annotations

import numpy as np

from ..parts import UserError
from ..records import Request


def check_request(request: Request, vocab: int, positions: int | None) -> None:
    """A prompt must be there, within the vocabulary, and leave room for `max_tokens` within the model's `positions`.

    Raises:
        UserError: it is not so; the message says which problem it is and what to do.
    """
    ids, most = np.asarray(request.prompt_ids), request.sampling.max_tokens
    name = f"the prompt of problem {request.problem.id!r}"
    if not len(ids):
        raise UserError(f"{name} is empty; give it at least one token")
    if most < 1:
        raise UserError(f"rollouts.max_tokens is {most}; set it to at least 1")
    if ids.min() < 0 or ids.max() >= vocab:
        raise UserError(f"{name} has token {ids.max()}, outside the model's vocabulary; use the model's tokenizer")
    if positions is not None and len(ids) + most > positions:
        raise UserError(
            f"{name} has {len(ids)} tokens, and with {most} new ones passes the model's {positions} positions; "
            f"set rollouts.max_tokens to at most {max(positions - len(ids), 0)} or leave the problem out"
        )

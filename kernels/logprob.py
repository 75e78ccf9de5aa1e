"""Log-probabilities of chosen tokens, and entropies, from hidden states; the logits never exist as a whole.

The plain path holds several [T, V] tensors at once, and at a vocabulary of 151,936 each takes 0.6 MB a token.
Here one block of tokens is read at a time, and all that the gradients need fits in [T, H].

For one token with hidden state h, let z be its logits, y the token chosen, W the head. Set y apart from the rest:

    l = logsumexp of z_v over v != y          r = softmax of z_v over v != y, and r_y = 0
    logp    = logsigmoid(z_y - l)             1 - p_y = sigmoid(l - z_y)
    lse     = logaddexp(l, z_y)               entropy = -p_y logp + (1 - p_y)(lse - r z)

**Frozen head.** The gradient of logp in h is (1 - p_y)(W_y - r W), whatever the loss, which adds but a factor a
token. So the forward pass forms it while the block of logits is there, and the backward pass only scales it: two
matrix products, as on the plain path, and the logits once. The entropy's gradient is a second such tensor, formed
only when asked for. Nothing cancels when the model is sure of y: 1 - p_y keeps all its digits.

**The rival** x is the likeliest token but y, where z was at its largest anyway. Its log-probability is
log r_x + log(1 - p_y), and its gradient in h that of logp plus W_x - W_y: no matrix product more. Near p_x = 1, where
this should vanish, what is left is the rounding of the slope of logp, one unit of its dtype times W_x - W_y.

**Trained head.** Its gradient is a sum over tokens, each times what the loss sends down, so it needs the logits
again. The backward pass takes a block of the vocabulary at a time, with all the tokens: each row of the gradient
then comes from one matrix product and is rounded once, and no float32 copy of the whole gradient is needed.

**Precision.** All between the matrix products is float32, and so is the logit of the chosen token, a dot product
of its own. The matrix products run in the hidden states' dtype and sum in float32; their result leaves in float32
on CUDA, and elsewhere is rounded once to that dtype, as on the plain path. With float64 input all is float64.

On an NVIDIA GPU a block is read by the kernels of `gpu/logprob.py`; the forms here are their reference.

Reading the logits in blocks is known from Milakov and Gimelshein, "Online normalizer calculation for softmax"
(arXiv 1805.02867), and Wijmans et al., "Cut your losses in large-vocabulary language models" (arXiv 2411.09009).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from .gpu.device import takes
from .head import Head, HeadTerms, Reading, Want, wide

# Logits alive at once, in elements. Each block of tokens reads the whole head anew, so below some 200 tokens (at a
# vocabulary of 150,000) the matrix products wait for memory; above, more memory buys little time. Two float32
# buffers of this size, and one in the hidden states' dtype if that is narrower, make 256 and 320 MiB.
BLOCK_ELEMENTS = 2**25


class TokenLogprobs(NamedTuple):
    """What `token_logprobs` gives, [T], in nats; None what was not asked for."""

    logp_T: Tensor
    entropy_T: Tensor | None
    rival_logp_T: Tensor | None


def token_logprobs(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    tokens_T: Tensor,
    *,
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    entropy: bool = True,
    entropy_grad: bool = False,
    rivals: bool = False,
) -> TokenLogprobs:
    """Log-probability of each chosen token, and entropy of each distribution, in nats.

    Token t's logits are `weight_VH @ hidden_TH[t] + bias_V`, then with a `softcap` (Gemma) `softcap * tanh(logits /
    softcap)`, and at last divided by `temperature`. Cost is in proportion to T: flatten a batch, and leave out what
    needs no log-probability (prompts, padding).

    Gradients flow to whichever of `hidden_TH`, `weight_VH` and `bias_V` require them; nothing is computed for those
    that do not. Under `torch.no_grad()` the call costs half: else the forward pass already prepares the gradient.
    Autocast has no effect, and there are no second derivatives.

    Args:
        hidden_TH: last hidden states, after the final norm; float16, bfloat16, float32 or float64.
        weight_VH: the output head, in the dtype of `hidden_TH`.
        tokens_T: integer ids in [0, V), the t-th drawn from the distribution that `hidden_TH[t]` gives.
        bias_V: the head's bias, in the same dtype.
        temperature: that of the sampler, above 0.
        softcap: bound on the size of the logits, above 0.
        entropy: also compute the entropies; a statistic, without gradient, unless `entropy_grad`.
        entropy_grad: let gradients flow through the entropies (an entropy bonus); one matrix product more.
        rivals: also give the log-probability of the likeliest token other than the chosen one, of equals the first,
            with its gradients; no matrix product more.

    Returns:
        logp_T, entropy_T (None without `entropy`) and rival_logp_T (None without `rivals`), float32, or float64 where
        `hidden_TH` is.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together, an id lies outside the vocabulary, or an option
            is out of range.
    """
    _check_tensors(hidden_TH, weight_VH, tokens_T, bias_V)
    for name, number in {"temperature": temperature, "softcap": softcap}.items():
        if number is not None and not 0 < number < float("inf"):
            raise ValueError(f"{name} must be above 0 and finite, got {number}")
    if entropy_grad and not entropy:
        raise ValueError("entropy_grad=True needs entropy=True")
    head = Head(weight_VH.detach(), None if bias_V is None else bias_V.detach(), 1 / temperature, softcap)
    want = Want(entropy, entropy_grad, rivals, slopes=torch.is_grad_enabled() and hidden_TH.requires_grad)
    return TokenLogprobs._make(_TokenLogprobs.apply(hidden_TH, weight_VH, bias_V, tokens_T.long(), head, want))


def _check_tensors(hidden_TH: Tensor, weight_VH: Tensor, tokens_T: Tensor, bias_V: Tensor | None) -> None:
    if hidden_TH.dim() != 2 or weight_VH.dim() != 2 or hidden_TH.shape[1] != weight_VH.shape[1]:
        shapes = f"{list(hidden_TH.shape)} and {list(weight_VH.shape)}"
        raise ValueError(f"hidden_TH and weight_VH must be [T, H] and [V, H], got {shapes}")
    vocabulary = len(weight_VH)
    if vocabulary < 2:
        raise ValueError(f"weight_VH must have at least two rows, got {vocabulary}")
    if tokens_T.shape != hidden_TH.shape[:1]:
        raise ValueError(f"tokens_T must be [{len(hidden_TH)}], like hidden_TH, got {list(tokens_T.shape)}")
    if bias_V is not None and bias_V.shape != weight_VH.shape[:1]:
        raise ValueError(f"bias_V must be [{vocabulary}], like weight_VH, got {list(bias_V.shape)}")
    if not hidden_TH.is_floating_point():
        raise ValueError(f"hidden_TH must be floating point, got {hidden_TH.dtype}")
    if tokens_T.is_floating_point() or tokens_T.is_complex() or tokens_T.dtype == torch.bool:
        raise ValueError(f"tokens_T must be integers, got {tokens_T.dtype}")
    for name, tensor in {"weight_VH": weight_VH, "bias_V": bias_V, "tokens_T": tokens_T}.items():
        if tensor is None:
            continue
        if tensor.device != hidden_TH.device:
            raise ValueError(f"{name} is on {tensor.device}, hidden_TH on {hidden_TH.device}: move one of them")
        if tensor is not tokens_T and tensor.dtype != hidden_TH.dtype:
            raise ValueError(f"{name} is {tensor.dtype}, hidden_TH {hidden_TH.dtype}: cast one of them")
    if tokens_T.numel():
        # Worth the wait for a GPU: else -100, the usual label for padding, would quietly mean the hundredth row from
        # the end.
        low, high = (int(end) for end in tokens_T.aminmax())
        if low < 0 or high >= vocabulary:
            raise ValueError(f"tokens_T must lie in [0, {vocabulary}), got ids from {low} to {high}")


class _Scratch:
    """A buffer for a block of logits, and one in the dtype of the matrix products where that is narrower.

    All blocks share them, for on a CPU fresh memory costs its page faults each time.
    """

    def __init__(self, rows: int, columns: int, like: Tensor) -> None:
        dtype = wide(like.dtype)
        self.z = like.new_empty(rows, columns, dtype=dtype)
        self.narrow = None if like.dtype == dtype else like.new_empty(rows, columns)

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """left @ right, in `z`."""
        z = self.z[: len(left)]
        if self.narrow is None:
            return torch.mm(left, right, out=z)
        if _leaves_wide(left):
            return torch.mm(left, right, out_dtype=z.dtype, out=z)
        return z.copy_(torch.mm(left, right, out=self.narrow[: len(left)]))

    def operand(self, values: Tensor) -> Tensor:
        """`values` in the dtype of the matrix products."""
        return values if self.narrow is None else self.narrow[: len(values)].copy_(values)


def _leaves_wide(operand: Tensor) -> bool:
    """Whether a product of narrow operands can leave in float32: so far cuBLAS alone offers it."""
    return operand.is_cuda and torch.version.hip is None and operand.dtype in (torch.bfloat16, torch.float16)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, in float32 where it can leave so, else in the dtype of the operands."""
    return torch.mm(left, right, out_dtype=torch.float32) if _leaves_wide(left) else torch.mm(left, right)


def _blocks(length: int, width: int) -> list[slice]:
    """Even slices of `length`, of at most about `BLOCK_ELEMENTS` elements at `width`; one empty slice of nothing."""
    count = max(1, min(length, -(-length * width // BLOCK_ELEMENTS)))
    step = -(-length // count)
    return [slice(start, min(start + step, length)) for start in range(0, max(1, length), max(1, step))]


def _read(head: Head, hidden_TH: Tensor, tokens_T: Tensor, want: Want) -> Reading:
    if takes(hidden_TH):
        from .gpu.logprob import read

        return read(head, hidden_TH, tokens_T, want)
    blocks = _blocks(len(hidden_TH), len(head.weight_VH))
    scratch = _Scratch(blocks[0].stop, len(head.weight_VH), hidden_TH)
    r_TV = torch.empty_like(scratch.z)
    parts = [_read_block(head, hidden_TH[rows], tokens_T[rows], want, scratch, r_TV) for rows in blocks]
    return Reading._make(_joined(column) for column in zip(*parts, strict=True))


def _joined(column: tuple[Tensor | None, ...]) -> Tensor | None:
    present = [part for part in column if part is not None]
    return torch.cat(present) if present else None


def _read_block(
    head: Head, hidden_TH: Tensor, tokens_T: Tensor, want: Want, scratch: _Scratch, r_buffer_TV: Tensor
) -> Reading:
    """`_read` for one block of tokens; letters as in the module's docstring."""
    z_T, bend_T = head.chosen(hidden_TH, tokens_T)
    z_TV = scratch.product(hidden_TH, head.weight_VH.t())
    bend_TV = head.finish_(z_TV, head.bias_V)
    # The lowest number there is, not -inf, for r z must be 0 at the chosen token.
    z_TV.scatter_(1, tokens_T[:, None], torch.finfo(z_TV.dtype).min)
    r_TV = torch.softmax(z_TV, dim=-1, out=r_buffer_TV[: len(z_TV)])
    # The fused softmax leaves its sum of exponentials as 1 / max(r). On a CPU it adds up the vocabulary one by one,
    # which costs a digit; torch.sum adds in pairs, so the sum of r tells what was lost.
    mass_T = r_TV.sum(-1)
    spread_T = torch.log(mass_T / r_TV.amax(-1))
    top_T, rival_T = z_TV.max(-1) if want.rivals else (z_TV.amax(-1), None)  # amax alone takes a third of the time
    l_T = top_T + spread_T
    logp_T, rest_T, lse_T = logsigmoid(z_T - l_T), torch.sigmoid(l_T - z_T), torch.logaddexp(l_T, z_T)
    entropy_T = logp_slope_TH = entropy_slope_TH = rival_slope_TH = None

    def pull(rest_TV: Tensor, chosen_T: Tensor) -> Tensor:
        """From logits to hidden states, all in one product: what cancels does so before anything is rounded."""
        if bend_T is not None and bend_TV is not None:
            rest_TV, chosen_T = rest_TV.mul_(bend_TV), chosen_T * bend_T
        all_TV = rest_TV.scatter_(1, tokens_T[:, None], chosen_T[:, None])
        return _product(scratch.operand(all_TV), head.weight_VH).to(z_T.dtype)

    if want.entropy:
        p_T, rz_TV = logp_T.exp(), z_TV.mul_(r_TV)
        entropy_T = rest_T * (lse_T - rz_TV.sum(-1) / mass_T) - p_T * logp_T
        if want.slopes and want.entropy_grad:
            # d entropy / d z_v = -p_v (log p_v + entropy)
            rest_TV = rz_TV.addcmul_(r_TV, (entropy_T - lse_T)[:, None]).mul_(rest_T[:, None])
            entropy_slope_TH = pull(rest_TV, p_T * (logp_T + entropy_T)).mul_(-head.scale)
    if want.slopes:
        logp_slope_TH = pull(r_TV, -torch.ones_like(z_T)).mul_((-head.scale * rest_T)[:, None])
    rival_logp_T = None if rival_T is None else logsigmoid(l_T - z_T) - spread_T
    if rival_T is not None and logp_slope_TH is not None:
        rival_bend_T = None if bend_TV is None else bend_TV.gather(1, rival_T[:, None])[:, 0]
        apart_TH = head.slope(rival_T, rival_bend_T) - head.slope(tokens_T, bend_T)
        rival_slope_TH = logp_slope_TH.add(apart_TH, alpha=head.scale)
    numbers = logp_T, lse_T, entropy_T, rival_logp_T, rival_T
    return Reading(*numbers, logp_slope_TH, entropy_slope_TH, rival_slope_TH)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        tokens_T: Tensor,
        head: Head,
        want: Want,
    ) -> tuple[Tensor | None, ...]:
        with torch.autocast(hidden_TH.device.type, enabled=False):
            reading = _read(head, hidden_TH, tokens_T, want)
        ctx.head = head
        ctx.set_materialize_grads(False)
        # Only a trained head sees the hidden states again. It and its bias are saved too, for autograd then notices
        # when an optimizer has changed them in between.
        for_head = (hidden_TH, tokens_T, *reading[:5], weight_VH, bias_V) if any(ctx.needs_input_grad[1:3]) else ()
        ctx.save_for_backward(*reading[5:], *for_head)
        if reading.entropy_T is not None and not want.entropy_grad:
            ctx.mark_non_differentiable(reading.entropy_T)
        return reading.logp_T, reading.entropy_T, reading.rival_logp_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *sent: Tensor | None) -> tuple[Tensor | None, ...]:
        slopes, for_head = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        head: Head = ctx.head
        hidden_grad_TH = weight_grad_VH = bias_grad_V = None
        if ctx.needs_input_grad[0]:
            hidden_grad_TH = _scaled_sum(zip(sent, slopes, strict=True), head.weight_VH.dtype)
        if for_head:
            hidden_TH, tokens_T, *numbers, _, _ = for_head
            reading = Reading(*numbers)
            with torch.autocast(hidden_TH.device.type, enabled=False):
                weight_grad_VH, bias_grad_V = _head_grads(
                    head, hidden_TH, tokens_T, reading, sent, ctx.needs_input_grad[1:3]
                )
        return hidden_grad_TH, weight_grad_VH, bias_grad_V, None, None, None


def _scaled_sum(sent: Iterable[tuple[Tensor | None, Tensor]], dtype: torch.dtype) -> Tensor | None:
    """The slopes, each times what the loss sent down for it, added up; None if it sent nothing at all."""
    parts = [slope_TH * grad_T[:, None] for grad_T, slope_TH in sent if grad_T is not None]
    return sum(parts[1:], parts[0]).to(dtype) if parts else None


def _head_grads(
    head: Head,
    hidden_TH: Tensor,
    tokens_T: Tensor,
    reading: Reading,
    sent: tuple[Tensor | None, ...],
    trained: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the weight and the bias: the logits once more, a block of the vocabulary at a time."""
    terms = _head_terms(head, tokens_T, reading, sent)
    if takes(hidden_TH):
        from .gpu.logprob import head_grads

        return head_grads(head, hidden_TH, terms, trained)
    blocks = _blocks(len(head.weight_VH), len(hidden_TH))
    scratch = _Scratch(blocks[0].stop, len(hidden_TH), hidden_TH)
    weight_grad_VH = torch.empty_like(head.weight_VH) if trained[0] else None
    bias_grad_V = torch.empty_like(head.bias_V) if trained[1] and head.bias_V is not None else None
    for rows in blocks:
        grad_VT = scratch.product(head.weight_VH[rows], hidden_TH.t())
        bend_VT = head.finish_(grad_VT, None if head.bias_V is None else head.bias_V[rows, None])
        log_p_VT = grad_VT.sub_(terms.lse_T)
        factor = terms.constant_T
        if terms.linear_T is not None:
            factor = torch.addcmul(factor, log_p_VT, terms.linear_T)
        grad_VT = log_p_VT.exp_().mul_(factor)
        for place_T, new_T in terms.places:
            _put_(grad_VT, place_T - rows.start, new_T)
        if bend_VT is not None:
            grad_VT.mul_(bend_VT)
        if bias_grad_V is not None:
            bias_grad_V[rows] = grad_VT.sum(1)
        if weight_grad_VH is not None:
            weight_grad_VH[rows] = _product(scratch.operand(grad_VT), hidden_TH)
    return weight_grad_VH, bias_grad_V


def _head_terms(head: Head, tokens_T: Tensor, reading: Reading, sent: tuple[Tensor | None, ...]) -> HeadTerms:
    """`sent` is what the loss sends down for the log-probs, the entropies and the rivals' log-probs."""
    # In a logit: g (1{v = y} - p_v), likewise for the rival, and for the entropy, with its own g, -g p_v (log p_v +
    # entropy).
    none_T = torch.zeros_like(reading.logp_T)
    g_T, entropy_g_T, rival_g_T = (none_T if grad_T is None else grad_T * head.scale for grad_T in sent)
    constant_T, linear_T, entropy_T = -(g_T + rival_g_T), None, reading.entropy_T
    if sent[1] is not None and entropy_T is not None:
        linear_T = -entropy_g_T
        constant_T = constant_T + linear_T * entropy_T

    def named(logp_T: Tensor, own_T: Tensor, other_T: Tensor) -> Tensor:
        """The gradient in the logit of a token of log-prob `logp_T`: 1 - p keeps its digits."""
        grad_T = -own_T * torch.expm1(logp_T) - other_T * logp_T.exp()
        if linear_T is None or entropy_T is None:
            return grad_T
        return grad_T + linear_T * logp_T.exp() * (logp_T + entropy_T)

    places = [(tokens_T, named(reading.logp_T, g_T, rival_g_T))]
    if reading.rival_T is not None and reading.rival_logp_T is not None:
        # Nowhere (-1) where the loss leaves the rival alone: all there is bit for bit as without rivals.
        places.append((reading.rival_T.where(rival_g_T != 0, -1), named(reading.rival_logp_T, rival_g_T, g_T)))
    return HeadTerms(reading.lse_T, constant_T, linear_T, places)


def _put_(values_VT: Tensor, row_T: Tensor, new_T: Tensor) -> None:
    """values_VT[row_T[t], t] = new_T[t] wherever there is such a row; a mask would make the host wait for a GPU."""
    row_1T = row_T.clamp(0, len(values_VT) - 1)[None]
    values_VT.scatter_(0, row_1T, torch.where(row_1T == row_T, new_T, values_VT.gather(0, row_1T)))

"""Log-probs, entropies and their gradients of one block of logits, in one Triton kernel; letters as in `../logprob.py`.

cuBLAS forms a block of logits, all the vocabulary of some hundred tokens; then one program a token reads its row twice.
First the online softmax: running maximum, sum of exponentials and first moment, a lane each, joined at the end, so no
sum is long and the chosen token is left out from the start. Then, where a gradient is wanted, the row is read again
and leaves as the left operand of the product that makes the slope. The torch form passes over a block some ten times.

Fusing the head's product into such a kernel as well would spare the two passes over float32 logits, at H = 1536 about
half of the product's time. But its backward pass must then form the logits again: three products instead of two, each
in Triton instead of cuBLAS. Without gradients alone it might gain; that is a small part of a step.

A trained head's gradient takes the vocabulary in blocks, with all the tokens: there one kernel turns the logits, formed
anew, into the operand and sums the bias's gradient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..head import Head, HeadTerms, Reading, Want, wide
from .device import launch

BLOCK_ELEMENTS = 2**26
"""Logits alive at once: 256 MiB, and half of that again for the operand in bfloat16. At a vocabulary of 151,936 that
is 384 tokens, enough for the products to wait for arithmetic and not for the head to be read."""
ALIGNED = 128
"""Blocks are of a multiple of so many rows, cuBLAS's tiles."""
LANES = 2048
"""Elements of a row that a program holds at once."""
TILE = (8, 256)
"""Rows of the vocabulary, and tokens, that a program of the head's gradient holds at once."""
LOWEST = tl.constexpr(-3.0e38)
"""Below any logit."""


def read(head: Head, hidden_TH: Tensor, tokens_T: Tensor, want: Want) -> Reading:
    """As `_read` there."""
    tokens, vocabulary = len(hidden_TH), len(head.weight_VH)
    numbers = [hidden_TH.new_empty(tokens, dtype=wide(hidden_TH.dtype)) for _ in range(5)]
    logp_T, lse_T, entropy_T, rival_logp_T, rest_T = numbers
    rival_T = torch.empty_like(tokens_T)
    slopes = [torch.empty_like(hidden_TH, dtype=logp_T.dtype) for _ in range(want.slopes * (1 + want.entropy_grad))]
    blocks = _blocks(tokens, vocabulary)
    z_TV = _padded(blocks[0].stop, vocabulary, logp_T)
    operand_TV = _padded(len(z_TV) if want.slopes else 0, vocabulary, hidden_TH)
    for rows in blocks:
        z = _product(hidden_TH[rows], head.weight_VH.t(), z_TV[: rows.stop - rows.start])
        into = [*(number[rows] for number in numbers), rival_T[rows]]
        _read_block(head, hidden_TH[rows], tokens_T[rows], want, z, operand_TV, into)
        if slopes:
            _product(operand_TV[: len(z)], head.weight_VH, slopes[0][rows])
        if len(slopes) > 1:
            _entropy_operand(head, tokens_T[rows], z, operand_TV, into)
            _product(operand_TV[: len(z)], head.weight_VH, slopes[1][rows])
    for slope_TH, factor_T in zip(slopes, (rest_T[:, None], 1.0), strict=False):
        slope_TH.mul_(-head.scale * factor_T)
    logp_slope_TH, entropy_slope_TH = (*slopes, None, None)[:2]
    rival_slope_TH = _rival_slope(head, hidden_TH, tokens_T, rival_T, logp_slope_TH) if want.rivals else None
    return Reading(
        logp_T,
        lse_T,
        entropy_T if want.entropy else None,
        rival_logp_T if want.rivals else None,
        rival_T if want.rivals else None,
        logp_slope_TH,
        entropy_slope_TH,
        rival_slope_TH,
    )


def head_grads(
    head: Head, hidden_TH: Tensor, terms: HeadTerms, trained: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """As `_head_grads` there."""
    tokens, vocabulary = len(hidden_TH), len(head.weight_VH)
    weight_grad_VH = torch.empty_like(head.weight_VH) if trained[0] else None
    bias_grad_V = torch.empty_like(head.bias_V) if trained[1] and head.bias_V is not None else None
    blocks = _blocks(vocabulary, tokens)
    z_VT = _padded(blocks[0].stop, tokens, terms.lse_T)
    operand_VT = _padded(len(z_VT) if trained[0] else 0, tokens, hidden_TH)
    token, named, *rival = [part for place in terms.places for part in place]
    per_token = (terms.lse_T, terms.constant_T, terms.linear_T, token, named, *(rival or (None, None)))
    for rows in blocks:
        z = _product(head.weight_VH[rows], hidden_TH.t(), z_VT[: rows.stop - rows.start])
        bias = None if head.bias_V is None else head.bias_V[rows]
        into = (operand_VT if trained[0] else None, None if bias_grad_V is None else bias_grad_V[rows])
        grid = (triton.cdiv(len(z), TILE[0]),)
        shape = (rows.start, len(z), tokens, z.stride(0), head.scale, head.softcap, *TILE)
        launch(_head_rows, grid, z, z, bias, *per_token, *into, *shape, num_warps=8)
        if weight_grad_VH is not None:
            # Its result leaves in the dtype of the gradient: summed in float32, and rounded once.
            torch.mm(operand_VT[: len(z)], hidden_TH, out=weight_grad_VH[rows])
    return weight_grad_VH, bias_grad_V


def _blocks(length: int, width: int) -> list[slice]:
    """Slices of `length`, of `BLOCK_ELEMENTS` at most where rows are `width`, or of `ALIGNED` rows."""
    step = max(ALIGNED, BLOCK_ELEMENTS // max(_pitch(width), 1) // ALIGNED * ALIGNED)
    return [slice(start, min(start + step, length)) for start in range(0, max(1, length), step)]


def _pitch(columns: int) -> int:
    """Rows begin at multiples of 16 elements: else loads are narrow, and products slow."""
    return -(-columns // 16) * 16


def _padded(rows: int, columns: int, like: Tensor) -> Tensor:
    """An empty matrix."""
    return like.new_empty(rows, _pitch(columns))[:, :columns]


def _product(left: Tensor, right: Tensor, into: Tensor) -> Tensor:
    """left @ right, in `into`, which is float32 or wider."""
    if left.dtype == into.dtype:
        return torch.mm(left, right, out=into)
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=into.dtype, out=into)
    return into.copy_(torch.mm(left, right))


def _read_block(
    head: Head, hidden_TH: Tensor, tokens_T: Tensor, want: Want, z: Tensor, operand: Tensor, into: list[Tensor]
) -> None:
    strides = (*hidden_TH.stride(), *head.weight_VH.stride())
    lanes = min(LANES, triton.next_power_of_2(z.shape[1]))
    narrow = min(1024, triton.next_power_of_2(max(hidden_TH.shape[1], 1)))
    wanted = (want.entropy, want.rivals, want.slopes)
    form = (head.scale, head.softcap, *wanted, 9 if z.dtype == torch.float32 else 18, lanes, narrow)
    tensors = (z, head.bias_V, hidden_TH, head.weight_VH, tokens_T, operand, *into)
    launch(
        _read_rows, (len(z),), z, *tensors, z.shape[1], z.stride(0), hidden_TH.shape[1], *strides, *form, num_warps=8
    )


def _entropy_operand(head: Head, tokens_T: Tensor, z: Tensor, operand: Tensor, into: list[Tensor]) -> None:
    logp_T, lse_T, entropy_T, *_ = into
    lanes = min(LANES, triton.next_power_of_2(z.shape[1]))
    form = (z.shape[1], z.stride(0), head.scale, head.softcap, lanes)
    grid = (len(z), triton.cdiv(z.shape[1], lanes))
    launch(_entropy_rows, grid, z, z, head.bias_V, tokens_T, logp_T, lse_T, entropy_T, operand, *form, num_warps=8)


def _rival_slope(
    head: Head, hidden_TH: Tensor, tokens_T: Tensor, rival_T: Tensor, logp_slope_TH: Tensor | None
) -> Tensor | None:
    """That of logp, plus the gradients of the rival's logit and less the chosen token's."""
    if logp_slope_TH is None:
        return None
    bends = [None if head.softcap is None else head.chosen(hidden_TH, ids_T)[1] for ids_T in (rival_T, tokens_T)]
    apart_TH = head.slope(rival_T, bends[0]) - head.slope(tokens_T, bends[1])
    return logp_slope_TH.add(apart_TH, alpha=head.scale)


@triton.jit
def _decay(x, SOFTCAP: tl.constexpr):
    """exp(-2 |x| / softcap), from which tanh and its slope follow."""
    return tl.exp(tl.abs(x) * (-2.0 / SOFTCAP))


@triton.jit
def _logits(x, SCALE: tl.constexpr, SOFTCAP: tl.constexpr):
    """Products become logits; off by a rounding of the softcap."""
    if SOFTCAP is not None:
        e = _decay(x, SOFTCAP)
        x = tl.where(x < 0, -SOFTCAP, SOFTCAP) * ((1 - e) / (1 + e))
    return x * SCALE


@triton.jit
def _bend(x, SOFTCAP: tl.constexpr):
    """d logit / d product over the scale, 1 - tanh^2."""
    e = _decay(x, SOFTCAP)
    return 4 * e / ((1 + e) * (1 + e))


@triton.jit
def _log1p(w, TERMS: tl.constexpr):
    """log(1 + w) of w in [0, 1], each of whose digits holds: 2 artanh(w / (2 + w)), s^2 being at most 1/9."""
    s = w / (2 + w)
    square = s * s
    series = square * 0
    for k in tl.static_range(TERMS):  # type: ignore[attr-defined]
        series = series * square + 1.0 / (2 * (TERMS - k) - 1)
    return 2 * s * series


@triton.jit
def _products(z, bias, v, V, stride):
    """Of a row, up to its padding, so that loads are wide; what stands there is anything."""
    x = tl.load(z + v, mask=v < stride, other=0.0)
    if bias is not None:
        x += tl.load(bias + v, mask=v < V, other=0.0).to(x.dtype)
    return x


@triton.jit
def _chosen(hidden, weight, bias, token, H, hidden_h, weight_h, WIDE: tl.constexpr, BLOCK_H: tl.constexpr):
    """The chosen token's product: a sum of its own."""
    own = tl.zeros([BLOCK_H], WIDE)
    for start in range(0, H, BLOCK_H):
        h = start + tl.arange(0, BLOCK_H)
        x = tl.load(hidden + h * hidden_h, mask=h < H, other=0.0).to(WIDE)
        own += x * tl.load(weight + h * weight_h, mask=h < H, other=0.0).to(WIDE)
    found = tl.sum(own)
    if bias is not None:
        found += tl.load(bias + token).to(WIDE)
    return found


@triton.jit
def _others(
    z, bias, token, V, stride,
    SCALE: tl.constexpr, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr, RIVALS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """All but the chosen token, read once, lane by lane: the largest logit and its place, and over that the sum of
    exponentials and the sum of exponentials times logits."""
    top = tl.full([LANES], LOWEST, z.dtype.element_ty)
    mass = tl.zeros([LANES], z.dtype.element_ty)
    moment = tl.zeros([LANES], z.dtype.element_ty)
    place = tl.zeros([LANES], tl.int32)
    for start in range(0, V, LANES):
        v = start + tl.arange(0, LANES)
        other = (v < V) & (v != token)
        x = tl.where(other, _logits(_products(z, bias, v, V, stride), SCALE, SOFTCAP), LOWEST)
        higher = tl.maximum(top, x)
        shrink, e = tl.exp(top - higher), tl.where(other, tl.exp(x - higher), 0.0)
        if ENTROPY:
            moved = tl.where(mass > 0, top - higher, 0.0)  # before a lane's first logit it has no bounds
            moment = shrink * (moment + moved * mass) + e * tl.where(other, x - higher, 0.0)
        if RIVALS:
            place = tl.where(x > top, v, place)
        mass = mass * shrink + e
        top = higher
    return top, mass, moment, place


@triton.jit
def _slope_operand(
    z, bias, operand, token, peak, total, V, stride, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, LANES: tl.constexpr
):
    """r, and -1 at the chosen token, times the bend."""
    inverse = 1 / total
    for start in range(0, V, LANES):
        v = start + tl.arange(0, LANES)
        product = _products(z, bias, v, V, stride)
        r = tl.exp(_logits(product, SCALE, SOFTCAP) - peak) * inverse
        r = tl.where(v == token, -1.0, r)
        if SOFTCAP is not None:
            r *= _bend(product, SOFTCAP)
        tl.store(operand + v, r.to(operand.dtype.element_ty), mask=v < stride)


@triton.jit
def _read_rows(
    z, bias, hidden, weight, tokens, operand, logp, lse, entropy, rival_logp, rest, rival,
    V, stride, H, hidden_t, hidden_h, weight_v, weight_h,
    SCALE: tl.constexpr, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr, RIVALS: tl.constexpr, SLOPES: tl.constexpr,
    TERMS: tl.constexpr, LANES: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """One token: its numbers, and with SLOPES the operand of its slope."""
    WIDE: tl.constexpr = z.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    token = tl.load(tokens + row)
    z += row * stride
    z_y = _chosen(hidden + row * hidden_t, weight + token * weight_v, bias, token, H, hidden_h, weight_h, WIDE, BLOCK_H)
    z_y = _logits(z_y, SCALE, SOFTCAP)
    top, mass, moment, place = _others(z, bias, token, V, stride, SCALE, SOFTCAP, ENTROPY, RIVALS, LANES)
    peak = tl.max(top)
    moved = tl.where(mass > 0, top - peak, 0.0)
    shrink = tl.exp(moved)
    total = tl.sum(mass * shrink)
    spread = tl.log(total)
    gap = z_y - (peak + spread)  # z_y - l
    small = tl.exp(-tl.abs(gap))
    tail = _log1p(small, TERMS)
    own_logp = tl.minimum(gap, 0.0) - tail
    own_rest = tl.where(gap > 0, small, 1.0) / (1 + small)
    above = spread + tl.maximum(gap, 0.0) + tail  # lse - peak
    tl.store(logp + row, own_logp)
    tl.store(rest + row, own_rest)
    tl.store(lse + row, peak + above)
    if ENTROPY:
        mean = tl.sum(shrink * (moment + moved * mass)) / total  # type: ignore[operator]
        tl.store(entropy + row, own_rest * (above - mean) - tl.exp(own_logp) * own_logp)
    if RIVALS:
        tl.store(rival + row, tl.min(tl.where(top == peak, place, V)))
        tl.store(rival_logp + row, tl.minimum(-gap, 0.0) - tail - spread)
    if SLOPES:
        _slope_operand(z, bias, operand + row * stride, token, peak, total, V, stride, SCALE, SOFTCAP, LANES)


@triton.jit
def _entropy_rows(
    z, bias, tokens, logp, lse, entropy, operand, V, stride,
    SCALE: tl.constexpr, SOFTCAP: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The operand of the entropy's slope: p (log p + entropy), times the bend."""
    row = tl.program_id(0).to(tl.int64)
    v = tl.program_id(1) * LANES + tl.arange(0, LANES)
    product = _products(z + row * stride, bias, v, V, stride)
    log_p = _logits(product, SCALE, SOFTCAP) - tl.load(lse + row)
    log_p = tl.where(v == tl.load(tokens + row), tl.load(logp + row), log_p)
    sent = tl.exp(log_p) * (log_p + tl.load(entropy + row))
    if SOFTCAP is not None:
        sent *= _bend(product, SOFTCAP)
    tl.store(operand + row * stride + v, sent.to(operand.dtype.element_ty), mask=v < stride)


@triton.jit
def _head_rows(
    z, bias, lse, constant, linear, token, named, rival, rival_named, operand, bias_grad, first, rows, T, stride,
    SCALE: tl.constexpr, SOFTCAP: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Some rows of the vocabulary, for all tokens: the gradient in each product, over the scale."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    total = tl.zeros([ROWS, TOKENS], z.dtype.element_ty)
    for start in range(0, T, TOKENS):
        t = start + tl.arange(0, TOKENS)[None, :]
        here, held = t < T, (r < rows) & (t < stride)
        place = r.to(tl.int64) * stride + t
        product = tl.load(z + place, mask=held, other=0.0)
        if bias is not None:
            product += tl.load(bias + r, mask=r < rows, other=0.0).to(product.dtype)
        log_p = _logits(product, SCALE, SOFTCAP) - tl.load(lse + t, mask=here, other=0.0)
        factor = tl.load(constant + t, mask=here, other=0.0)
        if linear is not None:
            factor += log_p * tl.load(linear + t, mask=here, other=0.0)
        sent = tl.exp(log_p) * factor
        sent = tl.where(first + r == tl.load(token + t, mask=here, other=-1), tl.load(named + t, mask=here), sent)
        if rival is not None:
            own = first + r == tl.load(rival + t, mask=here, other=-1)
            sent = tl.where(own, tl.load(rival_named + t, mask=here), sent)
        if SOFTCAP is not None:
            sent *= _bend(product, SOFTCAP)
        if operand is not None:
            tl.store(operand + place, sent.to(operand.dtype.element_ty), mask=held)
        total += tl.where(here & (r < rows), sent, 0.0)
    if bias_grad is not None:
        summed = tl.sum(total, axis=1, keep_dims=True)
        tl.store(bias_grad + r, summed.to(bias_grad.dtype.element_ty), mask=r < rows)

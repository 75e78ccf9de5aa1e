from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from underdog.kernels import logprob
from underdog.kernels.logprob import TokenLogprobs, token_logprobs

OPTIONS = [{}, {"temperature": 0.7}, {"softcap": 2.0}, {"temperature": 1.5, "softcap": 3.0}]
PRODUCTS = ("aten.mm.default", "aten.mm.out")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small operations on several threads wait for one another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(tokens: int, hidden: int, vocab: int, dtype=torch.float64, scale=1.0, seed=0) -> tuple[Tensor, ...]:
    """Hidden states, head, ids and bias; the logits deviate by about `scale`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden_TH, weight_VH = normal(tokens, hidden), normal(vocab, hidden) * scale / hidden**0.5
    tokens_T = torch.randint(vocab, (tokens,), generator=generator)
    return hidden_TH.to(dtype), weight_VH.to(dtype), tokens_T, normal(vocab).to(dtype)


def plain(hidden_TH, weight_VH, tokens_T, *, bias_V=None, temperature=1.0, softcap=None, rivals=False):
    """Whole logits in the inputs' dtype, the rest in float32 or float64."""
    logits_TV = functional.linear(hidden_TH, weight_VH, bias_V)
    logits_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
    if softcap is not None:
        logits_TV = softcap * torch.tanh(logits_TV / softcap)
    logp_TV = torch.log_softmax(logits_TV / temperature, dim=-1)
    others_TV = logp_TV.scatter(1, tokens_T[:, None], -torch.inf)
    rival_logp_T = others_TV.gather(1, others_TV.argmax(-1, keepdim=True))[:, 0] if rivals else None
    return TokenLogprobs(logp_TV.gather(1, tokens_T[:, None])[:, 0], -(logp_TV.exp() * logp_TV).sum(-1), rival_logp_T)


def run(function, inputs, loss, trained=(True, True, True), **options) -> dict[str, Any]:
    """The values, and the gradients of loss(logp_T, entropy_T, rival_logp_T)."""
    hidden_TH, weight_VH, tokens_T, bias_V = inputs
    tensors = hidden_TH, weight_VH, bias_V
    leaves = [x.detach().clone().requires_grad_(on) for x, on in zip(tensors, trained, strict=True)]
    read = function(leaves[0], leaves[1], tokens_T, bias_V=leaves[2], **options)
    loss(*read).backward()
    grads = dict(zip(("hidden", "weight", "bias"), (leaf.grad for leaf in leaves), strict=True))
    values = dict(zip(("logp", "entropy", "rival_logp"), read, strict=True))
    return {**{name: value_T.detach() for name, value_T in values.items() if value_T is not None}, **grads}


def policy_loss(logp_T: Tensor, *_: Tensor | None) -> Tensor:
    """Uneven weights, one of them 0, and the entropy only as a statistic."""
    return (logp_T * torch.linspace(-1, 2, len(logp_T) * 3 + 1, dtype=logp_T.dtype)[: len(logp_T)]).sum()


def bonus_loss(logp_T: Tensor, entropy_T: Tensor, *_: Tensor | None) -> Tensor:
    return policy_loss(logp_T, entropy_T) + (entropy_T * torch.linspace(1, 3, len(entropy_T), dtype=logp_T.dtype)).sum()


def hinge_loss(logp_T: Tensor, entropy_T: Tensor, rival_logp_T: Tensor) -> Tensor:
    """Uneven inverted hinges beside the surrogate's terms."""
    weight_T = torch.linspace(2, -1, len(logp_T), dtype=logp_T.dtype)
    return policy_loss(logp_T) + (weight_T * (1 + logp_T.exp() - rival_logp_T.exp())).sum()


def all_loss(logp_T: Tensor, entropy_T: Tensor, rival_logp_T: Tensor) -> Tensor:
    return bonus_loss(logp_T, entropy_T) + hinge_loss(logp_T, entropy_T, rival_logp_T)


LOSSES: dict[str, Any] = {"policy": policy_loss, "bonus": bonus_loss, "hinge": hinge_loss, "all": all_loss}


def off(got: Any, true: Any) -> float:
    """The largest error over the largest value."""
    return float((got.double() - true.double()).abs().max() / true.double().abs().max())


@settings(max_examples=80, deadline=None)
@given(
    tokens=st.integers(1, 9),
    vocab=st.integers(2, 40),
    hidden=st.integers(1, 6),
    block=st.integers(1, 200),
    kind=st.sampled_from(sorted(LOSSES)),
    trained=st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any),
    options=st.sampled_from(OPTIONS),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_values_and_all_gradients_equal_the_plain_path(
    tokens, vocab, hidden, block, kind, trained, options, scale, seed
):
    inputs = make(tokens, hidden, vocab, scale=scale, seed=seed)
    rivals, bonus = kind in ("hinge", "all"), kind in ("bonus", "all")
    true = run(plain, inputs, LOSSES[kind], trained, rivals=rivals, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logprob, "BLOCK_ELEMENTS", block)
        got = run(token_logprobs, inputs, LOSSES[kind], trained, entropy_grad=bonus, rivals=rivals, **options)
    assert got.keys() == true.keys()
    for name, value in true.items():
        if value is None:
            assert got[name] is None, f"{name} requires no gradient and got one"
        else:
            torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: name + text)


def test_the_bonus_alone_trains_everything():
    inputs = make(5, 4, 11)
    true = run(plain, inputs, lambda logp_T, entropy_T, _: entropy_T.sum())
    got = run(token_logprobs, inputs, lambda logp_T, entropy_T, _: entropy_T.sum(), entropy_grad=True)
    for name in ("hidden", "weight", "bias"):
        torch.testing.assert_close(got[name], true[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradcheck(options):
    hidden_TH, weight_VH, tokens_T, bias_V = make(3, 2, 5)
    leaves = tuple(x.requires_grad_() for x in (hidden_TH, weight_VH, bias_V))

    def function(hidden_TH, weight_VH, bias_V) -> Any:
        return token_logprobs(hidden_TH, weight_VH, tokens_T, bias_V=bias_V, entropy_grad=True, rivals=True, **options)

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize(("scale", "most"), [(1.0, 2e-6), (10.0, 1e-5)])
def test_float32_errors(scale, most):
    inputs = make(48, 64, 5000, torch.float32, scale)
    got = run(token_logprobs, inputs, policy_loss)
    true = run(plain, [x.double() if x.is_floating_point() else x for x in inputs], policy_loss)
    assert got["logp"].dtype == got["entropy"].dtype == torch.float32
    assert {name: off(got[name], true[name]) for name in true if off(got[name], true[name]) > most} == {}


def test_float32_sums_over_a_large_vocabulary_keep_their_digits():
    """Adding 150,000 exponentials one after the other would cost 1e-5 in logp and 1e-4 in the entropy."""
    hidden_TH, weight_VH, tokens_T, _ = make(8, 16, 150_000, torch.float32, scale=4.0)
    got: Any = token_logprobs(hidden_TH, weight_VH, tokens_T)
    true = plain(hidden_TH.double(), weight_VH.double(), tokens_T)
    for name, value, exact, most in zip(("logp", "entropy"), got[:2], true[:2], (4e-6, 1e-5), strict=True):
        assert float((value - exact).abs().max()) < most, name


@pytest.mark.parametrize(("dtype", "unit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("options", [{}, {"softcap": 5.0, "temperature": 0.8}])
def test_narrow_dtypes_stay_within_the_rounding_of_the_logits(dtype, unit, options):
    """Logits of 8 to 16 are rounded by up to eight units (entropy); the chosen one's is not (logp)."""
    inputs = make(48, 64, 5000, dtype, scale=3.0)
    got, rounded = (run(side, inputs, policy_loss, **options) for side in (token_logprobs, plain))
    true = run(plain, [x.double() if x.is_floating_point() else x for x in inputs], policy_loss, **options)
    assert [got[name].dtype for name in ("logp", "hidden", "weight", "bias")] == [torch.float32, *[dtype] * 3]
    for name, most in {"logp": 4, "entropy": 10}.items():
        assert float((got[name] - true[name]).abs().max()) < most * unit, name
    for name in ("hidden", "weight", "bias"):
        assert off(got[name], true[name]) < 3 * unit, name
    # The chosen token's logit is not rounded, and its rounding is most of the plain path's error.
    assert (got["logp"] - true["logp"]).norm() < 0.7 * (rounded["logp"] - true["logp"]).norm()


@pytest.mark.parametrize("gap", [5.0, 25.0, 60.0])
def test_sure_tokens_keep_their_digits(gap):
    """p_y is 1 in float32 from a gap of 17 on: the plain path then sees a log-probability and gradient of 0."""
    hidden_TH = torch.tensor([[1.0, 0.5]])
    weight_VH = torch.tensor([[gap, 0.25], [0.5, 1.0], [0.25, -1.0]])
    inputs = hidden_TH, weight_VH, torch.tensor([0]), torch.zeros(3)
    true = run(plain, [x.double() if x.is_floating_point() else x for x in inputs], lambda logp_T, *_: logp_T.sum())
    # The plain path's own logp loses digits, even in float64.
    logits_V = hidden_TH.double()[0] @ weight_VH.double().T
    true["logp"] = -torch.log1p((logits_V[1:] - logits_V[0]).exp().sum())[None]
    got = run(token_logprobs, inputs, lambda logp_T, *_: logp_T.sum())
    assert off(got["logp"], true["logp"]) < 2e-5
    rest = -torch.expm1(true["logp"])
    r_V = torch.softmax(logits_V[1:], -1)
    slope_H = rest * (weight_VH[0].double() - r_V @ weight_VH[1:].double())
    assert off(got["hidden"][0], slope_H) < 2e-5
    assert off(got["weight"], rest * torch.cat([torch.ones(1), -r_V])[:, None] * hidden_TH) < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_logits_stay_finite(dtype, scale):
    inputs = make(16, 8, 300, dtype, scale)
    inputs[2][:8] = (inputs[0] @ inputs[1].T).argmax(-1)[:8]  # half sure, half hopeless
    got = run(token_logprobs, inputs, all_loss, entropy_grad=True, rivals=True)
    assert all(bool(value.isfinite().all()) for value in got.values())
    true = run(plain, [x.double() if x.is_floating_point() else x for x in inputs], all_loss, rivals=True)
    assert off(got["logp"], true["logp"]) < (1e-5 if dtype == torch.float32 else 1e-2)
    assert (got["logp"] <= 0).all()
    assert (got["entropy"] >= -1e-6).all()


def test_logits_that_are_all_very_low():
    """The softmax runs with the chosen token masked out: nothing may be lower than the mask."""
    hidden_TH, weight_VH, tokens_T, _ = make(4, 8, 30)
    low_V = torch.full((30,), -1e7, dtype=torch.float64)
    torch.testing.assert_close(
        token_logprobs(hidden_TH, weight_VH, tokens_T, bias_V=low_V), plain(hidden_TH, weight_VH, tokens_T)
    )


def test_uniform_logits_give_the_logarithm_of_the_vocabulary():
    hidden_TH, weight_VH, tokens_T, _ = make(3, 4, 1000, torch.float32)
    logp_T, entropy_T, _ = token_logprobs(torch.zeros_like(hidden_TH), weight_VH, tokens_T)
    expected_T = torch.full((3,), 1000.0).log()
    torch.testing.assert_close(-logp_T, expected_T)
    torch.testing.assert_close(entropy_T, expected_T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tokens(dtype):
    hidden_TH, weight_VH, tokens_T, bias_V = make(0, 4, 9, dtype)
    got = run(token_logprobs, (hidden_TH, weight_VH, tokens_T, bias_V), all_loss, entropy_grad=True, rivals=True)
    assert got["logp"].shape == got["entropy"].shape == got["rival_logp"].shape == (0,)
    assert got["hidden"].shape == (0, 4)
    assert not got["weight"].any()
    assert not got["bias"].any()


def test_strided_inputs_and_short_ids():
    hidden_TH, weight_VH, tokens_T, _ = make(6, 4, 9)
    true, *_ = plain(hidden_TH[::2], weight_VH, tokens_T[::2])
    got, *_ = token_logprobs(hidden_TH[::2], weight_VH.T.contiguous().T, tokens_T[::2].to(torch.int16))
    torch.testing.assert_close(got, true)


def test_the_entropy_is_a_statistic_unless_asked():
    hidden_TH, weight_VH, tokens_T, _ = make(3, 4, 9)
    hidden_TH.requires_grad_()
    logp_T, entropy_T, _ = token_logprobs(hidden_TH, weight_VH, tokens_T)
    assert logp_T.requires_grad
    assert entropy_T is not None
    assert not entropy_T.requires_grad
    _, bonus_T, _ = token_logprobs(hidden_TH, weight_VH, tokens_T, entropy_grad=True)
    assert bonus_T is not None
    assert bonus_T.requires_grad
    without_T, none, _ = token_logprobs(hidden_TH, weight_VH, tokens_T, entropy=False)
    assert none is None
    assert torch.equal(without_T, logp_T)


class Watch(TorchDispatchMode):
    """The largest tensor that any operation gave, and the count of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.products += str(func) in PRODUCTS
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"rivals": True}, {"softcap": 2.0, "entropy_grad": True, "rivals": True}])
def test_the_logits_never_exist_as_a_whole(monkeypatch, dtype, options):
    tokens, hidden, vocab, block = 96, 4, 700, 5000
    monkeypatch.setattr(logprob, "BLOCK_ELEMENTS", block)
    inputs = make(tokens, hidden, vocab, dtype)
    loss = all_loss if "entropy_grad" in options else hinge_loss if options else policy_loss
    with Watch() as watch:
        run(token_logprobs, inputs, loss, **options)
    assert block / 2 < watch.largest <= block
    with Watch() as watch:
        run(plain, inputs, policy_loss)
    assert watch.largest == tokens * vocab  # so the watch sees what it should


def test_the_blocks_at_full_size_are_even_and_bounded():
    tokens, vocab = 4096, 151_936
    for length, width in ((tokens, vocab), (vocab, tokens), (1, vocab), (1000, 10**9)):
        blocks = logprob._blocks(length, width)
        assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
        assert blocks[-1].stop == length
        sizes = [block.stop - block.start for block in blocks]
        assert min(sizes) > 0
        assert max(sizes) == 1 or max(sizes) * width <= logprob.BLOCK_ELEMENTS
    assert tokens * vocab / logprob.BLOCK_ELEMENTS > 8


@pytest.mark.parametrize(
    ("trained", "entropy_grad", "forward", "backward"),
    [
        ((False, False, False), False, 1, 0),
        ((True, False, False), False, 2, 0),
        ((True, False, False), True, 3, 0),
        ((True, True, False), False, 2, 2),
        ((False, True, False), False, 1, 2),
        ((False, False, True), False, 1, 1),
    ],
)
@pytest.mark.parametrize("rivals", [False, True])
def test_no_matrix_product_is_for_nothing(trained, entropy_grad, forward, backward, rivals):
    hidden_TH, weight_VH, tokens_T, bias_V = make(5, 4, 11, torch.bfloat16)
    leaves = [x.requires_grad_(on) for x, on in zip((hidden_TH, weight_VH, bias_V), trained, strict=True)]
    with Watch() as watch:
        logp_T, _, rival_logp_T = token_logprobs(
            leaves[0], leaves[1], tokens_T, bias_V=leaves[2], entropy_grad=entropy_grad, rivals=rivals
        )
        assert watch.products == forward
        if any(trained):
            (logp_T if rival_logp_T is None else logp_T + rival_logp_T).sum().backward()
    assert watch.products == forward + backward


def test_without_gradients_only_the_logits_are_computed():
    hidden_TH, weight_VH, tokens_T, _ = make(5, 4, 11)
    with torch.no_grad(), Watch() as watch:
        logp_T, *_ = token_logprobs(hidden_TH.requires_grad_(), weight_VH.requires_grad_(), tokens_T)
    assert watch.products == 1
    assert not logp_T.requires_grad


def test_a_head_changed_before_the_backward_pass_is_noticed():
    hidden_TH, weight_VH, tokens_T, _ = make(5, 4, 11)
    logp_T, *_ = token_logprobs(hidden_TH, weight_VH.requires_grad_(), tokens_T)
    with torch.no_grad():
        weight_VH.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logp_T.sum().backward()


def test_the_backward_pass_can_run_twice():
    hidden_TH, weight_VH, tokens_T, _ = make(5, 4, 11)
    leaves = hidden_TH.requires_grad_(), weight_VH.requires_grad_()
    logp_T, *_ = token_logprobs(*leaves, tokens_T)
    first, second = (torch.autograd.grad(logp_T.sum(), leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_autocast_changes_nothing():
    inputs = make(5, 4, 11, torch.float32)
    outside = run(token_logprobs, inputs, policy_loss)
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(token_logprobs, inputs, policy_loss)
    assert all(torch.equal(outside[name], inside[name]) for name in outside)


def test_products_leave_in_float32_where_they_can(monkeypatch):
    """The branch for CUDA: a stand-in for torch.mm does on a CPU what cuBLAS does with out_dtype."""
    mm, asked = torch.mm, []

    def wide_mm(left, right, *, out_dtype=None, out=None):
        asked.append(out_dtype)
        result = mm(left.to(out_dtype), right.to(out_dtype))
        return result if out is None else out.copy_(result)

    monkeypatch.setattr(torch, "mm", wide_mm)
    monkeypatch.setattr(logprob, "_leaves_wide", lambda operand: True)
    inputs = make(48, 64, 5000, torch.bfloat16, scale=3.0)
    got = run(token_logprobs, inputs, bonus_loss, entropy_grad=True)
    assert asked == [torch.float32] * 5  # logits and two slopes; logits again and the weight's gradient
    monkeypatch.undo()
    true = run(plain, [x.double() if x.is_floating_point() else x for x in inputs], bonus_loss)
    for name, most in {"logp": 1e-6, "entropy": 1e-6, "hidden": 2**-7, "weight": 2**-7, "bias": 2**-7}.items():
        assert off(got[name], true[name]) < most, name
    assert got["hidden"].dtype == got["weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.04), (torch.float16, 0.005)])
def test_what_all_rows_of_the_head_share_cancels(dtype, most):
    """W_y - r W with 64 in every entry, and logits near 0: r W, rounded by itself, is off by three times as much."""
    hidden_TH, weight_VH, tokens_T, bias_V = make(16, 8, 4000, dtype)
    hidden_TH[:, 4:] = -hidden_TH[:, :4]
    inputs = hidden_TH, torch.where(weight_VH > 0, 64.0, 63.0).to(dtype), tokens_T, bias_V
    got = run(token_logprobs, inputs, policy_loss, (True, False, False))
    true = run(plain, [x.double() if x.is_floating_point() else x for x in inputs], policy_loss, (True, False, False))
    assert off(got["hidden"], true["hidden"]) < most


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_TH": torch.zeros(2, 3, 4)}, r"\[T, H\] and \[V, H\], got \[2, 3, 4\] and \[9, 4\]"),
        ({"hidden_TH": torch.zeros(3, 5)}, r"got \[3, 5\] and \[9, 4\]"),
        ({"weight_VH": torch.zeros(1, 4)}, "at least two rows, got 1"),
        ({"tokens_T": torch.zeros(4, dtype=torch.long)}, r"tokens_T must be \[3\], like hidden_TH, got \[4\]"),
        ({"tokens_T": torch.zeros(3)}, "tokens_T must be integers, got torch.float32"),
        ({"tokens_T": torch.tensor([0, -100, 1])}, r"tokens_T must lie in \[0, 9\), got ids from -100 to 1"),
        ({"tokens_T": torch.tensor([0, 9, 1])}, r"tokens_T must lie in \[0, 9\), got ids from 0 to 9"),
        ({"bias_V": torch.zeros(8)}, r"bias_V must be \[9\], like weight_VH, got \[8\]"),
        ({"weight_VH": torch.zeros(9, 4).double()}, "weight_VH is torch.float64, hidden_TH torch.float32"),
        ({"bias_V": torch.zeros(9).bfloat16()}, "bias_V is torch.bfloat16, hidden_TH torch.float32"),
        ({"hidden_TH": torch.zeros(3, 4).long()}, "hidden_TH must be floating point, got torch.int64"),
        ({"weight_VH": torch.zeros(9, 4, device="meta")}, "weight_VH is on meta, hidden_TH on cpu"),
        ({"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0 and finite, got nan"),
        ({"softcap": -1.0}, "softcap must be above 0 and finite, got -1.0"),
        ({"entropy": False, "entropy_grad": True}, "entropy_grad=True needs entropy=True"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {
        "hidden_TH": torch.zeros(3, 4),
        "weight_VH": torch.zeros(9, 4),
        "tokens_T": torch.zeros(3, dtype=torch.long),
    }
    with pytest.raises(ValueError, match=message):
        token_logprobs(**(arguments | change))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(2, 40), st.integers(1, 200), st.integers(0, 99))
def test_what_is_read_with_the_rivals_is_bit_for_bit_what_is_read_without(tokens, vocab, block, seed):
    """Also where the rival gets no gradient: so tokens of positive advantage train as without the hinge."""
    inputs = make(tokens, 4, vocab, torch.float32, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logprob, "BLOCK_ELEMENTS", block)
        alone = run(token_logprobs, inputs, policy_loss)
        beside = run(token_logprobs, inputs, lambda logp_T, _, x_T: policy_loss(logp_T) + 0 * x_T.sum(), rivals=True)
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def test_of_rivals_that_are_equal_the_first_gets_the_gradient():
    """Tokens 1, 3 and 4 share the highest logit; the chosen one is 1, in the second row 0."""
    weight_VH = torch.tensor([[0.0], [2.0], [1.0], [2.0], [2.0]], dtype=torch.float64).requires_grad_()
    tokens_T = torch.tensor([1, 0])
    rival_logp_T = token_logprobs(torch.ones(2, 1).double(), weight_VH, tokens_T, rivals=True).rival_logp_T
    assert rival_logp_T is not None
    p_V = torch.softmax(weight_VH.detach()[:, 0], 0)
    torch.testing.assert_close(rival_logp_T.detach(), p_V.log()[[3, 1]])
    for token, first in enumerate((3, 1)):
        (grad_VH,) = torch.autograd.grad(rival_logp_T[token], weight_VH, retain_graph=True)
        torch.testing.assert_close(grad_VH[:, 0], torch.eye(5, dtype=torch.float64)[first] - p_V)


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2**-23), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("gap", [5.0, 20.0, 60.0])
def test_sure_rivals_leave_no_more_than_rounding(dtype, unit, gap):
    """Near p = 1 the rival's gradient is 0: what the kernel gives is off by rounding of rows of the head, no more."""
    hidden_TH, weight_VH, tokens_T, _ = make(16, 8, 300, dtype)
    likeliest_T = (hidden_TH.double() @ weight_VH.double().T).argmax(-1)
    hidden_TH = hidden_TH.index_copy(0, torch.arange(16), (hidden_TH * gap).to(dtype))
    tokens_T = torch.where(tokens_T == likeliest_T, (tokens_T + 1) % 300, tokens_T)
    inputs = hidden_TH, weight_VH, tokens_T, torch.zeros(300, dtype=dtype)

    def rival_loss(_logp_T: Tensor, _entropy_T: Tensor, rival_logp_T: Tensor) -> Tensor:
        return rival_logp_T.exp().sum()

    got = run(token_logprobs, inputs, rival_loss, rivals=True)
    true = run(plain, [x.double() if x.is_floating_point() else x for x in inputs], rival_loss, rivals=True)
    assert (got["rival_logp"] <= 0).all()
    rows = 2 * float(weight_VH.double().norm(dim=1).max())
    assert float((got["hidden"].double() - true["hidden"]).norm(dim=1).max()) < 8 * unit * rows * max(1.0, gap / 5)

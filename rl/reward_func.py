"""Underdog's rewards in TRL's GRPOTrainer: `reward_funcs=[underdog.reward_func("accuracy")]`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from ..parts import Options, UserError, names
from ..records import Group, Problem, Sample, Verdict, Version
from ..rewards.base import Reward
from ..rewards.shaping.none import NONE
from ..verifiers.base import Verifier
from .choices import Choice, describe, name_of
from .own import own_reward, own_verifier
from .scoring import score
from .suggestions import explain

GOLD_COLUMNS = ("answer", "solution")
"""Columns of the data set that may hold the gold answer; the first that is there counts."""


class _Chosen(Options):
    reward: Annotated[Any, Choice("reward", own_reward)]
    verifier: Annotated[Any, Choice("verifier", own_verifier)] = Field(default="math", validate_default=True)


def reward_func(
    name: str, *, verifier: str | Mapping[str, Any] | Verifier = "math", **options: Any
) -> Callable[..., list[float | None]]:
    """A callable for TRL's `reward_funcs` that judges the completions and then scores them.

    The data set's column `answer`, or else `solution`, holds the gold answers (a number, a text in LaTeX, a solution
    with its last box, or GSM8K's `… #### 72`). Completions of the same prompt and gold answer form a group. What
    cannot be graded is None, which TRL leaves out. Functions with the same verifier share its workers, and verdicts on
    one batch.

    Args:
        name: a reward of `rewards/`, or `file.py:name`.
        verifier: a name, a block `{"name": …, options}`, or a verifier.
        options: the reward's options.

    Raises:
        UserError: no such reward, verifier or option; or a shaping, which needs log-probs that TRL does not pass.
    """
    if name in names("shaping"):
        raise UserError(
            f"{name!r} is a shaping: it needs the log-probs of the completions, which TRL does not pass to rewards; "
            "train with underdog to use it"
        )
    tree = {"reward": {"name": name, **options}, "verifier": verifier}
    try:
        chosen = _Chosen.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, _Chosen, tree)) from None
    reward, judge = chosen.reward, _judge_of(chosen.verifier)

    def function(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **columns: Any
    ) -> list[float | None]:
        if completion_ids is None and getattr(reward, "unit", "") == "tokens":
            raise UserError(f"the reward {name!r} measures tokens: pass completion_ids, or use unit='characters'")
        problems = _problems(prompts, columns)
        texts = [_text(completion) for completion in completions]
        verdicts = judge.judge_all(list(zip(problems, texts, strict=True)))
        rewards: list[float | None] = [None] * len(texts)
        for indices in _groups(problems):
            group = _group(indices, problems, texts, completion_ids, verdicts)
            for i, value in zip(indices, _score(name, reward, group), strict=True):
                rewards[i] = None if np.isnan(value) else float(value)
        return rewards

    function.__name__ = function.__qualname__ = name.rpartition(":")[2]
    return function


class _Judge:
    """A verifier and what it last said: TRL asks every reward about the same batch, one after the other."""

    def __init__(self, verifier: Verifier):
        self._verifier = verifier
        self._lock = threading.Lock()
        self._last: tuple[list[tuple[Problem, str]], list[Verdict]] = ([], [])

    def judge_all(self, submissions: list[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts in order; those of the last call again where the submissions are the same."""
        with self._lock:
            if self._last[0] != submissions:
                self._last = (submissions, self._verifier.judge_all(submissions))
            return self._last[1]


_judges: dict[str, _Judge] = {}


def _judge_of(verifier: Verifier) -> _Judge:
    if name_of(verifier) not in names("verifier"):  # a user's own need not be what its options say
        return _Judge(verifier)
    return _judges.setdefault(json.dumps(describe(verifier), sort_keys=True), _Judge(verifier))


def _problems(prompts: Sequence[Any], columns: Mapping[str, Any]) -> list[Problem]:
    golds = next((columns[key] for key in GOLD_COLUMNS if columns.get(key) is not None), None)
    if golds is None:
        has = ", ".join(sorted(columns)) or "no column but the prompt"
        raise UserError(f"the data set needs a column {' or '.join(GOLD_COLUMNS)} with the gold answers; it has {has}")
    return [
        Problem("", prompt if isinstance(prompt, str) else tuple(prompt), "" if gold is None else str(gold))
        for prompt, gold in zip(prompts, golds, strict=True)
    ]


def _text(completion: Any) -> str:
    """A completion's text: itself, or what the assistant says in TRL's list of chat turns."""
    if isinstance(completion, str):
        return completion
    said = (turn.get("content") for turn in completion if turn.get("role", "assistant") == "assistant")
    return "".join(content for content in said if isinstance(content, str))


def _groups(problems: Sequence[Problem]) -> list[list[int]]:
    """Positions of the completions of each problem."""
    groups: dict[str, list[int]] = {}
    for i, problem in enumerate(problems):
        groups.setdefault(json.dumps([problem.prompt, problem.answer], sort_keys=True, default=repr), []).append(i)
    return list(groups.values())


def _group(
    indices: Sequence[int], problems: Sequence[Problem], texts: Sequence[str], ids: Any, verdicts: Sequence[Verdict]
) -> Group:
    nothing = np.zeros(0, dtype=np.int64)
    samples = tuple(
        Sample(
            problem_id=problems[i].id,
            index=k,
            version=Version(0, ""),
            seed=0,
            prompt_ids=nothing,
            tokens_T=nothing if ids is None else np.asarray(ids[i], dtype=np.int64),
            logp_T=None,
            text=texts[i],
            stop="eos",
        )
        for k, i in enumerate(indices)
    )
    return Group(problems[indices[0]], samples, tuple(verdicts[i] for i in indices))


def _score(name: str, reward: Reward, group: Group) -> np.ndarray:
    (scored,) = score([group], {name: (1.0, reward)}, NONE())
    return scored.parts[name]

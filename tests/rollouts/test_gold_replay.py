"""The engines that decode nothing: the data's own solutions, and the samples that another run saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from underdog.parts import RunError, UserError
from underdog.records import Problem, Request, Sampling, derive_seed
from underdog.rollouts.base import Surroundings
from underdog.rollouts.gold import Gold
from underdog.rollouts.replay import Replay


class Characters:
    """A tokenizer that gives each character its code, and its end token when asked for special ones."""

    eos_token_id: int | None = 0

    def __call__(self, texts: list[str], add_special_tokens: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [[*map(ord, text), *([0] if add_special_tokens else [])] for text in texts]}


def policy(number: int, digest: str) -> Any:
    return SimpleNamespace(number=number, digest=lambda: digest)


def surroundings(tmp_path, tokenizer: Any = None) -> Surroundings:
    return Surroundings(tokenizer or Characters(), "cpu", tmp_path)


def request(problem: Problem, seeds=(5, 6), max_tokens: int = 20) -> Request:
    return Request(problem, np.array([1, 2], np.int32), tuple(seeds), Sampling(max_tokens))


@pytest.fixture
def gold(tmp_path):
    engine = Gold().open(surroundings(tmp_path))
    engine.publish(policy(0, "aa"))
    return engine


def test_gold_hands_out_the_solution_and_one_end_token(gold):
    groups = gold.generate([request(Problem("a", "p", solution="xy")), request(Problem("b", "p", solution="z"), [9])])
    assert [[s.tokens_T.tolist() for s in group] for group in groups] == [
        [[ord("x"), ord("y"), 0]] * 2,
        [[ord("z"), 0]],
    ]
    first, second = groups[0]
    assert (first.text, first.stop, first.logp_T, first.problem_id) == ("xy", "gold", None, "a")
    assert (first.tokens_T.dtype, first.prompt_ids.tolist()) == (np.int64, [1, 2])
    assert [(s.index, s.seed) for s in (first, second)] == [(0, 5), (1, 6)]


def test_gold_serves_the_version_published_last_and_keeps_one_of_the_same_digest(gold):
    def served():
        return gold.generate([request(Problem("a", "p", solution="x"))])[0][0].version

    first = served()
    assert gold.publish(policy(1, "aa")) == first
    second = gold.publish(policy(2, "bb"))
    assert (second.number, second.digest) == (2, "bb")
    assert served() == second


def test_gold_chooses_among_several_solutions_by_seed(gold):
    problem = Problem("a", "p", info={"solutions": ["x", "y", "z"]})
    seeds = [derive_seed("run", k) for k in range(60)]
    texts = [s.text for s in gold.generate([request(problem, seeds)])[0]]
    assert set(texts) == {"x", "y", "z"}
    assert texts[::-1] == [s.text for s in gold.generate([request(problem, seeds[::-1])])[0]]


def test_gold_never_cuts_a_solution(gold):
    problem = Problem("a", "p", solution="xyz")
    assert len(gold.generate([request(problem, max_tokens=4)])[0][0].tokens_T) == 4
    with pytest.raises(UserError, match=r"is 4 tokens long, over rollouts\.max_tokens=3"):
        gold.generate([request(problem, max_tokens=3)])


def test_gold_names_a_problem_without_a_solution(gold):
    with pytest.raises(UserError, match="'lost' has no solution"):
        gold.generate([request(Problem("lost", "p"))])


def test_gold_refuses_a_tokenizer_without_an_end_token(tmp_path):
    tokenizer = Characters()
    tokenizer.eos_token_id = None
    with pytest.raises(UserError, match="end token"):
        Gold().open(surroundings(tmp_path, tokenizer))


RUN_SEED = 3


def saved(step: int, problem: str, index: int) -> dict[str, Any]:
    """One line as a run saves it."""
    return {
        "step": step,
        "problem": problem,
        "prompt": "p",
        "answer": "1",
        "index": index,
        "seed": derive_seed(RUN_SEED, step, problem, index),
        "version": step - 1,
        "digest": f"{step:02x}",
        "prompt_ids": [1, 2],
        "tokens": [step, index, 0],
        "logp": [-0.5, -0.25, -0.125],
        "text": f"{problem} at {step} €",
        "stop": "eos",
        "outcome": "right",
    }


@pytest.fixture
def run(tmp_path):
    """A run of 12 steps, more than sort right as text, with the problem `a` in each."""
    folder = tmp_path / "run"
    (folder / "rollouts").mkdir(parents=True)
    for step in range(1, 13):
        rows = [saved(step, problem, index) for problem in ("a", f"b{step}") for index in range(3)]
        write(folder, step, rows)
    return folder


def write(folder, step: int, rows) -> None:
    path = folder / "rollouts" / f"step_{step}.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def replayed(run, tmp_path):
    engine = Replay(run=str(run)).open(surroundings(tmp_path))
    engine.publish(policy(40, "ff"))
    return engine


def asked(problem: str, step: int, indices: Sequence[int] = range(3)) -> Request:
    return request(Problem(problem, "p"), [derive_seed(RUN_SEED, step, problem, k) for k in indices])


@pytest.mark.parametrize("order", [range(1, 13), range(12, 0, -1), [7, 2, 7, 11]])
def test_replay_gives_each_request_the_samples_saved_for_it(run, tmp_path, order):
    engine = replayed(run, tmp_path)
    for step in order:
        groups = engine.generate([asked(f"b{step}", step), asked("a", step, [2, 0])])
        assert [[s.tokens_T.tolist() for s in group] for group in groups] == [
            [[step, k, 0] for k in range(3)],
            [[step, k, 0] for k in (2, 0)],
        ]
        sample = groups[1][0]
        assert (sample.index, sample.text, sample.stop) == (2, f"a at {step} €", "eos")
        assert (sample.version.number, sample.version.digest) == (step - 1, f"{step:02x}")
        assert sample.logp_T is not None
        assert sample.logp_T.tolist() == [-0.5, -0.25, -0.125]
        assert (sample.logp_T.dtype, sample.tokens_T.dtype) == (np.float32, np.int64)


def test_replay_reads_no_further_than_it_is_asked(run, tmp_path):
    write(run, 5, ["damaged"])
    engine = replayed(run, tmp_path)
    assert len(engine.generate([asked("a", step) for step in (1, 2, 3, 4)])) == 4
    with pytest.raises(RunError, match=r"step_5\.jsonl holds a damaged"):
        engine.generate([asked("a", 5)])


def test_replay_keeps_samples_without_log_probs(run, tmp_path):
    write(run, 1, [saved(1, "a", 0) | {"logp": None, "stop": "gold"}])
    (sample,) = replayed(run, tmp_path).generate([asked("a", 1, [0])])[0]
    assert sample.logp_T is None


@pytest.mark.parametrize(
    "missing", [asked("nobody", 1), asked("a", 13), request(Problem("a", "p"), [derive_seed(4, 1, "a", 0)])]
)
def test_replay_names_what_the_run_does_not_hold(run, tmp_path, missing):
    with pytest.raises(RunError, match="no sample of problem") as caught:
        replayed(run, tmp_path).generate([missing])
    assert repr(missing.problem.id) in str(caught.value)
    assert str(missing.seeds[0]) in str(caught.value)


def test_replay_refuses_samples_of_another_prompt(run, tmp_path):
    write(run, 1, [saved(1, "a", 0) | {"prompt_ids": [1, 3]}])
    with pytest.raises(RunError, match="another prompt"):
        replayed(run, tmp_path).generate([asked("a", 1, [0])])


def test_replay_refuses_a_sample_that_lacks_a_field(run, tmp_path):
    row = saved(1, "a", 0)
    del row["tokens"]
    write(run, 1, [row])
    with pytest.raises(RunError, match="damaged"):
        replayed(run, tmp_path).generate([asked("a", 1, [0])])


def test_replay_needs_a_run_that_saved_samples(tmp_path):
    with pytest.raises(UserError, match=r"rollouts/step_N\.jsonl"):
        Replay(run=str(tmp_path)).open(surroundings(tmp_path))

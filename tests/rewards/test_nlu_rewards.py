"""Both reward schemes of the paper on language understanding, from the verdicts of the verifier `nlu`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from underdog.records import Problem
from underdog.rewards.base import Reward
from underdog.rewards.nlu_code import NluCode
from underdog.rewards.nlu_paper import NluPaper
from underdog.verifiers.nlu.nlu import Nlu

COMPLETIONS = ["<Judgement>Yes</Judgement>", "<Judgement>No</Judgement>", "Yes", "<Judgement>Yes or No</Judgement>"]


def rewards(make_group, reward: type[Reward], task: str, answer: str, completions: list[str]) -> np.ndarray:
    problem = Problem("p", "?", answer, info={"task": task})
    verifier = Nlu()
    verdicts = tuple(verifier.judge(problem, completion) for completion in completions)
    group = replace(make_group("?" * len(completions), completions), problem=problem, verdicts=verdicts)
    return reward().score(group)


@pytest.mark.parametrize(("reward", "expected"), [(NluPaper, [1, 0, -1, -1]), (NluCode, [1, -1, -3, -3])])
def test_labels(make_group, reward: type[Reward], expected: list[float]):
    np.testing.assert_array_equal(rewards(make_group, reward, "cola", "Yes", COMPLETIONS), expected)


@pytest.mark.parametrize("reward", [NluPaper, NluCode])
def test_similarity_earns_by_its_error_after_clipping(make_group, reward: type[Reward]):
    said = ["4", "3.2", "0", "1000", "-1000", "high", "3 or 4"]
    completions = [*(f"<Judgement>{text}</Judgement>" for text in said), "4"]
    np.testing.assert_allclose(
        rewards(make_group, reward, "stsb", "4", completions), [2.5, 1.7, -1.5, 1.5, -1.5, -2.5, -2.5, -2.5]
    )


@pytest.mark.parametrize(("reward", "expected"), [(NluPaper, [1, 0, -1]), (NluCode, [1, -1, -3])])
def test_entities(make_group, reward: type[Reward], expected: list[float]):
    completions = ["<Judgement>the Rome</Judgement>", "<Judgement>Paris</Judgement>", "Rome"]
    np.testing.assert_array_equal(rewards(make_group, reward, "record", "Rome", completions), expected)

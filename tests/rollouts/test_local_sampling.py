"""How `local` draws: the distribution itself, the filters, and one stream of numbers a seed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from underdog.records import Sampling  # noqa: E402
from underdog.rollouts.decoding import sampling as drawing  # noqa: E402
from underdog.rollouts.decoding.sampling import Rules, draw, uniform  # noqa: E402

DRAWS = 20_000
PLANTED = np.array([0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.015, 0.005])
ORDER = [5, 2, 7, 0, 3, 6, 1, 4]
"""Token ids from likeliest to least likely: an order that is not the vocabulary's."""
# 99.99 % of a chi-square distribution, by its degrees of freedom.
CHI_SQUARE = {1: 15.1, 2: 18.4, 3: 21.1, 4: 23.5, 5: 25.7, 6: 27.9, 7: 29.9}


def planted() -> np.ndarray:
    probs = np.zeros(8)
    probs[ORDER] = PLANTED
    return probs


def reference(probs: np.ndarray, rules: Sampling) -> np.ndarray:
    """The filters one after the other, as their papers put them, renormalised after each."""
    if rules.temperature == 0:
        return np.eye(len(probs))[probs.argmax()]
    probs = probs ** (1 / rules.temperature)
    probs = probs / probs.sum()
    ranked = np.argsort(-probs)
    if rules.top_k:
        probs[ranked[rules.top_k :]] = 0
        probs = probs / probs.sum()
    if rules.top_p < 1:
        needed = next(n for n in itertools.count(1) if probs[ranked[:n]].sum() >= rules.top_p - 1e-9)
        probs[ranked[needed:]] = 0
        probs = probs / probs.sum()
    probs[probs < rules.min_p * probs.max()] = 0
    return probs / probs.sum()


def rules_of(*samplings: Sampling) -> Rules:
    return Rules.of(samplings, torch.device("cpu"))


@pytest.mark.parametrize(
    "rules",
    [
        Sampling(1),
        Sampling(1, temperature=0.6),
        Sampling(1, temperature=1.7),
        Sampling(1, temperature=0.0),
        Sampling(1, top_k=3),
        Sampling(1, top_p=0.7),
        Sampling(1, min_p=0.2),
        Sampling(1, temperature=1.3, top_k=6, top_p=0.9, min_p=0.1),
    ],
    ids=str,
)
def test_samples_follow_the_distribution(rules: Sampling) -> None:
    probs = planted()
    logits = torch.from_numpy(np.log(probs)).float().expand(DRAWS, -1) + 3.0
    chance = torch.from_numpy(uniform(np.arange(DRAWS, dtype=np.uint64), np.zeros(DRAWS, dtype=np.int64)))
    tokens, logp = draw(logits, chance, rules_of(*[rules] * DRAWS))
    expected = reference(probs.copy(), rules) * DRAWS
    counts = np.bincount(tokens.numpy(), minlength=8)
    assert (counts[expected == 0] == 0).all()
    likely = expected > 0
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    assert statistic < CHI_SQUARE.get(int(likely.sum()) - 1, 1e-9)
    np.testing.assert_allclose(logp.numpy(), np.log(probs)[tokens.numpy()], atol=1e-5)


def test_a_rows_draw_does_not_depend_on_the_rules_beside_it() -> None:
    noise = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    chance = torch.tensor([0.1, 0.5, 0.7, 0.9])
    samplings = [Sampling(1), Sampling(1, top_k=4), Sampling(1, top_p=0.5), Sampling(1, temperature=0.0)]
    together, _ = draw(noise, chance, rules_of(*samplings))
    for i, sampling in enumerate(samplings):
        alone, _ = draw(noise[i : i + 1], chance[i : i + 1], rules_of(sampling))
        assert together[i] == alone[0]


@pytest.mark.parametrize("spread", [0.01, 3.0])
def test_top_p_over_a_large_vocabulary_is_exact(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flat distributions need more than the likeliest tokens that are tried first; peaked ones do not."""
    monkeypatch.setattr(drawing, "HEAD", 64)
    logits = spread * torch.randn(3, 3000, generator=torch.Generator().manual_seed(0))
    kept = drawing._probabilities(logits.log_softmax(-1), rules_of(*[Sampling(1, top_p=0.8)] * 3))
    for row, logits_V in zip(kept.numpy(), logits.double(), strict=True):
        expected = reference(logits_V.softmax(-1).numpy(), Sampling(1, top_p=0.8))
        assert abs(int((row > 0).sum()) - int((expected > 0).sum())) <= 1
        np.testing.assert_allclose(row / row.sum(), expected, atol=2e-4 * expected.max() + 1e-6)


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((3, 6), -math.inf)
    logits[:, 2] = 0.0
    edges = torch.tensor([0.0, 0.5, 1.0 - 2.0**-24])
    tokens, logp = draw(logits, edges, rules_of(*[Sampling(1)] * 3))
    assert tokens.tolist() == [2, 2, 2]
    assert logp.tolist() == [0.0, 0.0, 0.0]


def test_numbers_are_uniform_and_uncorrelated_across_seeds_and_steps() -> None:
    seeds, steps = np.meshgrid(np.arange(400, dtype=np.uint64), np.arange(200), indexing="ij")
    u = uniform(seeds.ravel(), steps.ravel()).reshape(400, 200).astype(np.float64)
    assert u.min() >= 0.0
    assert u.max() < 1.0
    counts = np.histogram(u, bins=50, range=(0, 1))[0]
    assert ((counts - u.size / 50) ** 2 / (u.size / 50)).sum() < 102  # 99.999 % at 49 degrees of freedom
    for shifted in (u[1:] * u[:-1], u[:, 1:] * u[:, :-1]):
        assert abs(shifted.mean() - 0.25) < 5 * math.sqrt(7 / 144 / shifted.size)
    assert len(np.unique(uniform(np.array([7, 2**63 - 1, 2**64 - 1], dtype=np.uint64), np.zeros(3, dtype=int)))) == 3

"""Every algorithm against its paper's formula, written out here in float64: values, gradients, denominators."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from underdog.parts import RunError, UserError, find, names
from underdog.records import Group

MAX_TOKENS = 10
POLICY_GRADIENTS = ("grpo", "dr_grpo", "dapo", "rloo", "reinforce_pp", "gspo", "cispo")


def build(name: str, **options: Any) -> Any:
    if name in ("dr_grpo", "dapo"):
        options = {"max_tokens": MAX_TOKENS, **options}
    return find("algorithm", name)(**options)


# --- references ------------------------------------------------------------------------------------------------


def deviation(rewards: list[float]) -> float:
    mean = sum(rewards) / len(rewards)
    return math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))


def constant(rewards: list[float]) -> bool:
    return max(rewards) == min(rewards)


def grpo_advantages(rewards: list[float]) -> list[float]:
    if constant(rewards):
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    return [(r - mean) / (deviation(rewards) + 1e-4) for r in rewards]


def centred(rewards: list[float]) -> list[float]:
    return [r - sum(rewards) / len(rewards) for r in rewards]


def loo(rewards: list[float]) -> list[float]:
    return [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]


class Completion:
    """One graded sample with everything the formulas name, as float64 tensors."""

    def __init__(self, group: Group, i: int, new: torch.Tensor) -> None:
        def tensor(values: Any) -> torch.Tensor:
            return torch.tensor(np.asarray(values, dtype=np.float64))

        assert group.rewards_G is not None
        self.reward = float(group.rewards_G[i])
        self.new, self.length = new, len(new)
        self.old = tensor(group.annotations["logp"][i])
        self.ref = tensor(group.annotations["ref_logp"][i])
        self.engine = tensor(group.samples[i].logp_T)


def completions(groups: list[Group], news: dict[int, torch.Tensor]) -> list[list[Completion]]:
    graded = [
        [
            Completion(g, i, news[id(g.samples[i].tokens_T)])
            for i, verdict in enumerate(g.verdicts)
            if verdict.outcome != "could_not_grade"
        ]
        for g in groups
    ]
    return [group for group in graded if group]


def ppo(c: Completion, advantages: list[float], low: float, high: float) -> list[torch.Tensor]:
    """−min(ρA, clip(ρ)A), token by token."""
    losses = []
    for t, a in enumerate(advantages):
        ratio = torch.exp(c.new[t] - c.old[t])
        clipped = torch.clip(ratio, 1 - low, 1 + high)
        losses.append(-torch.min(ratio * a, clipped * a))
    return losses


def k3(c: Completion, t: int) -> torch.Tensor:
    return torch.exp(c.ref[t] - c.new[t]) - (c.ref[t] - c.new[t]) - 1


def reference_grpo(groups: list[list[Completion]], kl: float = 0.0) -> torch.Tensor:
    """DeepSeekMath eq. 3 with TRL's mean: over tokens, then over all completions, constant groups among them."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        for c, a in zip(group, grpo_advantages([c.reward for c in group]), strict=True):
            tokens = ppo(c, [a] * c.length, 0.2, 0.2)
            total = total + sum(tokens[t] + kl * k3(c, t) for t in range(c.length)) / c.length
            count += 1
    return total / count


def reference_dr_grpo(groups: list[list[Completion]]) -> torch.Tensor:
    """No deviation; the sum over tokens over (completions · MAX_TOKENS)."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        for c, a in zip(group, centred([c.reward for c in group]), strict=True):
            total = total + sum(ppo(c, [a] * c.length, 0.2, 0.2))
            count += 1
    return total / (count * MAX_TOKENS)


def reference_dapo(groups: list[list[Completion]]) -> torch.Tensor:
    """eq. 8 over the groups that dynamic sampling lets through, rewards with eq. 13's penalty."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        if constant([c.reward for c in group]):
            continue
        buffer = MAX_TOKENS / 5
        penalties = [max(-1.0, min(0.0, (MAX_TOKENS - buffer - c.length) / buffer)) for c in group]
        rewards = [c.reward + p for c, p in zip(group, penalties, strict=True)]
        for c, a in zip(group, grpo_advantages(rewards), strict=True):
            total = total + sum(ppo(c, [a] * c.length, 0.2, 0.28))
            count += c.length
    return total / count


def reference_rloo(groups: list[list[Completion]], kl: float = 0.0) -> torch.Tensor:
    """A completion's ratio is the product of its tokens'; a mean over completions."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        rewards = [c.reward - kl * float((c.old - c.ref).sum()) for c in group]
        for c, a in zip(group, loo(rewards), strict=True):
            ratio = torch.exp((c.new - c.old).sum())
            total = total - torch.min(ratio * a, torch.clip(ratio, 0.8, 1.2) * a)
            count += 1
    return total / count


def reference_reinforce_pp(groups: list[list[Completion]], kl: float = 0.0) -> torch.Tensor:
    """Returns r − kl·Σ_{s≥t} log(old/ref), normalised over all tokens; a mean over tokens."""
    flat = [c for group in groups for c in group]
    returns = [[c.reward - kl * float((c.old[t:] - c.ref[t:]).sum()) for t in range(c.length)] for c in flat]
    values = np.array([value for row in returns for value in row])
    total = torch.zeros((), dtype=torch.float64)
    for c, row in zip(flat, returns, strict=True):
        total = total + sum(ppo(c, [(v - values.mean()) / values.std() for v in row], 0.2, 0.2))
    return total / len(values)


def reference_gspo(groups: list[list[Completion]]) -> torch.Tensor:
    """eq. 5 and 7: the ratio is the geometric mean."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        for c, a in zip(group, grpo_advantages([c.reward for c in group]), strict=True):
            ratio = torch.exp((c.new - c.old).sum() / c.length)
            total = total - torch.min(ratio * a, torch.clip(ratio, 1 - 3e-4, 1 + 4e-4) * a)
            count += 1
    return total / count


def reference_cispo(groups: list[list[Completion]]) -> torch.Tensor:
    """eq. 4 with an upper bound of 5 only, over the groups that dynamic sampling lets through."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        rewards = [c.reward for c in group]
        if constant(rewards):
            continue
        for c, a in zip(group, grpo_advantages(rewards), strict=True):
            for t in range(c.length):
                weight = min(math.exp((c.new[t] - c.old[t]).item()), 5.0)
                total = total - weight * a * c.new[t]
            count += c.length
    return total / count


REFERENCES: list[tuple[str, dict[str, Any], Callable[..., torch.Tensor]]] = [
    ("grpo", {"kl": 0.0}, reference_grpo),
    ("grpo", {"kl": 0.04}, lambda groups: reference_grpo(groups, 0.04)),
    ("dr_grpo", {}, reference_dr_grpo),
    ("dapo", {}, reference_dapo),
    ("rloo", {"kl": 0.0}, reference_rloo),
    ("rloo", {"kl": 0.05}, lambda groups: reference_rloo(groups, 0.05)),
    ("reinforce_pp", {"kl": 0.0}, reference_reinforce_pp),
    ("reinforce_pp", {"kl": 0.1}, lambda groups: reference_reinforce_pp(groups, 0.1)),
    ("gspo", {}, reference_gspo),
    ("cispo", {}, reference_cispo),
]


@pytest.mark.parametrize(("name", "options", "reference"), REFERENCES)
def test_value_and_gradient_equal_the_papers(name, options, reference, groups, new_logps, update) -> None:
    """With old log-probs apart from the new ones, so that clipping acts, and no correction for the engine."""
    algorithm = build(name, epochs=2, mismatch="none", **options)
    value, gradients, _ = update(algorithm, algorithm.advantages(groups))
    for leaf in new_logps.values():
        leaf.grad = None
    expected = reference(completions(groups, new_logps))
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-6)
    for key, leaf in new_logps.items():
        theirs = np.zeros(len(leaf)) if leaf.grad is None else leaf.grad.numpy()
        np.testing.assert_allclose(gradients[key], theirs, rtol=1e-5, atol=1e-9)


def test_supervised_is_the_mean_cross_entropy(groups, new_logps, update) -> None:
    algorithm = build("supervised")
    value, gradients, _ = update(algorithm, algorithm.advantages(groups))
    logps = np.concatenate([leaf.detach().numpy() for leaf in new_logps.values()])
    assert value == pytest.approx(-logps.mean())
    for gradient in gradients.values():
        np.testing.assert_allclose(gradient, -1 / len(logps))


def test_supervised_reads_no_verdict_and_no_reward(make_group) -> None:
    group = make_group("gold", [0.0, 1.0], [2, 3], ungraded=[0], engine=False, scored=False)
    assert len(build("supervised").advantages([group]).rows) == 2


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_the_first_update_is_reinforce(name, groups, update) -> None:
    """The ratio is exactly 1, nothing is clipped, and the gradient is −weight·A (a completion's −A/N for RLOO)."""
    algorithm = build(name, kl=0.0, mismatch="none")
    batch = algorithm.advantages(groups)
    _, gradients, stats = update(algorithm, batch)
    for row in batch.rows:
        scale = len(row.tokens_T) if name == "rloo" else 1
        np.testing.assert_allclose(
            gradients[id(row.tokens_T)], -scale * row.weight * row.advantage_T.astype(np.float64), rtol=1e-12
        )
    assert not stats["clip_ratio/low_mean"].any()
    assert not stats["clip_ratio/high_mean"].any()


# --- which groups, which samples, which denominators -----------------------------------------------------------


# Graded lengths: mixed 3, 5, 2, 4; constant 2, 4; partly 1, 7 (9 not graded); 8 completions, 28 tokens; without the
# constant group 6 and 22.
@pytest.mark.parametrize(
    ("name", "options", "rows", "weight"),
    [
        ("grpo", {"kl": 0.0}, 6, lambda n: 1 / (8 * n)),
        ("grpo", {"kl": 0.04}, 8, lambda n: 1 / (8 * n)),
        ("dr_grpo", {"kl": 0.0}, 6, lambda n: 1 / (8 * MAX_TOKENS)),
        ("dr_grpo", {"kl": 0.04}, 8, lambda n: 1 / (8 * MAX_TOKENS)),
        ("gspo", {}, 6, lambda n: 1 / (8 * n)),
        ("rloo", {"kl": 0.0}, 6, lambda n: 1 / (8 * n)),
        ("dapo", {}, 6, lambda n: 1 / 22),
        ("dapo", {"kl": 0.04}, 6, lambda n: 1 / 22),
        ("cispo", {}, 6, lambda n: 1 / 22),
        ("reinforce_pp", {}, 8, lambda n: 1 / 28),
        ("supervised", {}, 11, lambda n: 1 / 51),
    ],
)
def test_denominators(name, options, rows, weight, groups) -> None:
    batch = build(name, **options).advantages(groups)
    assert len(batch.rows) == rows
    for row in batch.rows:
        assert row.weight == pytest.approx(weight(len(row.tokens_T)), rel=1e-12)


def test_dr_grpo_by_tokens_is_the_mean_over_a_group_s_tokens_then_over_groups(make_group) -> None:
    """Tina's code: a micro-batch is a group, its loss the sum over its tokens over their number; a mean of those."""
    groups = [make_group("a", [1.0, 0.0, 0.5], [3, 5, 2]), make_group("b", [0.0, 1.0, 1.0], [7, 1, 4])]
    batch = build("dr_grpo", kl=0.04, by_tokens=True).advantages(groups)
    expected = [1 / 2 / 10] * 3 + [1 / 2 / 12] * 3
    assert [row.weight for row in batch.rows] == pytest.approx(expected, rel=1e-12)
    plain = build("dr_grpo", kl=0.04).advantages(groups)
    assert [r.advantage_T.tolist() for r in batch.rows] == [r.advantage_T.tolist() for r in plain.rows]


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_groups_are_counted(name, groups) -> None:
    stats = build(name, kl=0.0).advantages(groups).stats
    dropped = 0 if name == "reinforce_pp" else 1
    assert stats["groups/used"] == 3 - dropped
    assert stats["groups/dropped_constant"] == dropped
    assert stats["groups/dropped_ungraded"] == 1


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_ungraded_samples_change_nothing(name, make_group) -> None:
    """Neither the others' advantages nor their weights: the same group without them gives the same rows."""
    algorithm = build(name, kl=0.0)
    whole = make_group("a", [1.0, 0.0, 0.5], [3, 4, 2])
    more = make_group("a", [1.0, 0.0, 0.5, 9.0, 0.0], [3, 4, 2, 8, 5], ungraded=[3, 4])
    rows, others = algorithm.advantages([whole]).rows, algorithm.advantages([more]).rows
    assert len(rows) == len(others) == 3
    for row, other in zip(rows, others, strict=True):
        np.testing.assert_array_equal(row.advantage_T, other.advantage_T)
        assert row.weight == other.weight


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_nothing_graded_is_an_empty_batch(name, make_group) -> None:
    batch = build(name).advantages([make_group("a", [0, 1], [2, 3], ungraded=[0, 1])])
    assert batch.rows == ()
    assert batch.stats["groups/dropped_ungraded"] == 1


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_neither_order_nor_packing_matters(name, groups, new_logps, pack, update) -> None:
    """One micro-batch, or shuffled rows in several: the sums of losses and of gradients are the same."""
    algorithm = build(name, epochs=2, mismatch="mask")
    rows = list(algorithm.advantages(groups).rows)
    value, gradients, _ = update(algorithm, algorithm.advantages(groups))
    random.Random(4).shuffle(rows)
    for leaf in new_logps.values():
        leaf.grad = None
    total = torch.zeros((), dtype=torch.float64)
    for part in (rows[:1], rows[1:4], rows[4:]):
        total = total + algorithm.loss(*pack(part, [new_logps[id(row.tokens_T)] for row in part]))[0]
    total.backward()
    assert total.item() == pytest.approx(value, rel=1e-12)
    for row in rows:
        grad = new_logps[id(row.tokens_T)].grad
        assert grad is not None
        np.testing.assert_allclose(grad.numpy(), gradients[id(row.tokens_T)], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_the_order_of_groups_changes_no_row(name, groups) -> None:
    algorithm = build(name)
    rows = {id(row.tokens_T): row for row in algorithm.advantages(groups).rows}
    turned = algorithm.advantages(groups[::-1]).rows
    assert len(turned) == len(rows)
    for row in turned:
        np.testing.assert_allclose(row.advantage_T, rows[id(row.tokens_T)].advantage_T, rtol=1e-6)
        assert row.weight == rows[id(row.tokens_T)].weight


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_an_infinite_reward_ends_the_run(name, make_group) -> None:
    with pytest.raises(RunError, match="infinite"):
        build(name).advantages([make_group("a", [math.inf, 0], [2, 3])])


# --- what annotations are needed -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_needs_old_log_probs_for_several_updates_and_the_reference_for_kl(name) -> None:
    assert build(name, kl=0.0).needs == frozenset()
    assert build(name, kl=0.0, epochs=2).needs == {"logp"}
    assert build(name, kl=0.0, minibatch=8).needs == {"logp"}
    reward_kl = {"logp"} if name in ("rloo", "reinforce_pp") else set()  # fixed before the update
    assert build(name, kl=0.1).needs == {"ref_logp"} | reward_kl


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_one_update_takes_the_detached_new_log_probs_for_old(name, groups) -> None:
    """Even where others needed an annotation of them: dropout must not move the ratio from 1."""
    assert all(row.old_logp_T is None for row in build(name).advantages(groups).rows)
    batch = build(name, epochs=2, minibatch=3).advantages(groups)
    assert all(row.old_logp_T is not None for row in batch.rows)
    assert (batch.epochs, batch.minibatch) == (2, 3)


def test_kl_is_logged(groups, update) -> None:
    grpo = build("grpo", kl=0.04, kl_estimator="k2")
    _, _, stats = update(grpo, grpo.advantages(groups))
    assert stats["kl"].dtype == torch.float32
    assert (stats["kl"] >= 0).all()
    assert stats["kl"].any()
    graded = [c for group in groups for c in zip(*group.annotations.values(), group.verdicts, strict=True)]
    seen = [logp_T - ref_T for logp_T, ref_T, v in graded if v.outcome != "could_not_grade"]
    assert build("rloo").advantages(groups).stats["kl"] == pytest.approx(np.concatenate(seen).mean(), rel=1e-5)


# --- engine against learner --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mismatch", ["truncate", "mask"])
@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_mismatch_weighs_each_token(name, mismatch, groups, new_logps, update) -> None:
    """At the first update each token's gradient is multiplied by its weight (RLOO's and GSPO's by their mean)."""
    plain = build(name, kl=0.0, mismatch="none")
    corrected = build(name, kl=0.0, mismatch=mismatch, mismatch_cap=1.3)
    batch = corrected.advantages(groups)
    _, before, _ = update(plain, plain.advantages(groups))
    _, after, stats = update(corrected, batch)
    over = []
    for row in batch.rows:
        assert row.engine_logp_T is not None
        ratio_T = np.exp(new_logps[id(row.tokens_T)].detach().numpy() - row.engine_logp_T.astype(np.float64))
        over.append(ratio_T > 1.3)
        weight_T = np.minimum(ratio_T, 1.3) if mismatch == "truncate" else np.where(ratio_T > 1.3, 0, ratio_T)
        if name in ("rloo", "gspo"):
            weight_T = np.full_like(weight_T, weight_T.mean())
        np.testing.assert_allclose(after[id(row.tokens_T)], before[id(row.tokens_T)] * weight_T, rtol=1e-9)
    fraction = np.concatenate(over).mean()
    assert 0 < fraction < 1
    assert stats["sampling/masked_fraction"].mean().item() == pytest.approx(fraction)
    assert batch.stats["sampling/absent_fraction"] == 0


def test_absent_engine_log_probs_are_skipped_and_reported(make_group, groups, update) -> None:
    """Where some rows have none, none is corrected: else the loss would depend on the packing."""
    grpo = build("grpo", kl=0.0)
    mixed = [groups[0], make_group("without", [0.0, 1.0], [2, 2], engine=False)]
    batch = grpo.advantages(mixed)
    assert batch.stats["sampling/absent_fraction"] == pytest.approx(2 / 6)
    assert all(row.engine_logp_T is None for row in batch.rows)
    assert "sampling/absent_fraction" not in build("grpo", mismatch="none").advantages(mixed).stats
    _, _, stats = update(grpo, grpo.advantages([groups[0]]))
    assert "sampling/masked_fraction" in stats


# --- DAPO --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scored", [True, False])
def test_dynamic_sampling_waits_for_informative_groups(scored, make_group) -> None:
    """By rewards where there are some, by verdicts while groups are still being collected; ungraded ones are none."""
    informative = [make_group(n, [0.0, 1.0], [2, 2], scored=scored) for n in "ab"]
    idle = make_group("c", [1.0, 1.0], [2, 2], scored=scored)
    half = make_group("d", [1.0, 0.0], [2, 2], ungraded=[1], scored=scored)
    for name in ("dapo", "cispo"):
        algorithm = build(name)
        assert not algorithm.enough([informative[0], idle, half], 2)
        assert algorithm.enough([informative[0], idle, half, informative[1]], 2)
    for name in ("grpo", "dr_grpo", "rloo", "reinforce_pp", "gspo", "supervised"):
        assert build(name).enough([idle], 2)


def test_fewer_informative_groups_than_a_draw_has_may_be_enough(make_group) -> None:
    groups = [make_group(n, [0.0, 1.0], [2, 2]) for n in "ab"]
    assert build("dapo", informative=2).enough(groups, 16)
    assert not build("dapo", informative=2).enough(groups[:1], 16)
    assert not build("dapo").enough(groups, 16)
    assert len(build("dapo", informative=1).advantages(groups).rows) == 4, "what was drawn beyond it is used too"


def test_length_alone_makes_no_group_informative(make_group) -> None:
    batch = build("dapo").advantages([make_group("a", [1.0, 1.0], [2, 10])])
    assert batch.rows == ()
    assert batch.stats["rewards/overlong/mean"] == -0.5


def test_the_penalty_comes_before_the_normalisation(make_group) -> None:
    """Right but over-long (1 − 1) is no better than wrong and short; without a penalty it is."""
    group = make_group("a", [1.0, 0.0, 1.0], [10, 2, 2])
    penalised = [row.advantage_T[0] for row in build("dapo").advantages([group]).rows]
    assert penalised[0] == penalised[1] < penalised[2]
    plain = [row.advantage_T[0] for row in build("dapo", overlong_penalty=0.0).advantages([group]).rows]
    assert plain[0] == plain[2] > plain[1]


def test_max_tokens_must_be_known(groups) -> None:
    for name in ("dapo", "dr_grpo"):
        with pytest.raises(UserError, match=r"algorithm\.max_tokens"):
            find("algorithm", name)().advantages(groups)
    assert find("algorithm", "dapo")(overlong_penalty=0.0).advantages(groups).rows


def test_a_buffer_beyond_max_tokens_is_refused() -> None:
    with pytest.raises(ValidationError, match="overlong_buffer"):
        build("dapo", overlong_buffer=11)


# --- the part as a part ------------------------------------------------------------------------------------------


def test_reward_kl_lowers_the_reward_of_what_strayed(make_group) -> None:
    """Equal rewards, different log(policy/reference): RLOO prefers the completion nearer to the reference."""
    group = make_group("a", [1.0, 1.0], [3, 3])
    near, far = np.full(3, -1.0, np.float32), np.full(3, -0.2, np.float32)
    group.annotations["logp"] = (near, far)  # type: ignore[index]
    group.annotations["ref_logp"] = (near, near)  # type: ignore[index]
    first, second = build("rloo", kl=0.5).advantages([group]).rows
    assert first.advantage_T[0] == pytest.approx(0.5 * 3 * 0.8)
    assert second.advantage_T[0] == pytest.approx(-0.5 * 3 * 0.8)


def test_defaults_are_the_sources() -> None:
    grpo, dapo, gspo = build("grpo"), build("dapo"), build("gspo")
    assert (grpo.kl, grpo.kl_estimator, grpo.epochs, grpo.minibatch) == (0.04, "k3", 1, None)
    assert (dapo.clip_low, dapo.clip_high, dapo.kl) == (0.2, 0.28, 0.0)
    assert (gspo.clip_low, gspo.clip_high) == (3e-4, 4e-4)


def test_all_are_found_without_torch() -> None:
    script = "import sys; sys.modules['torch'] = None; import underdog.parts as p; print(*p.names('algorithm'))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert set(found.split()) >= {*POLICY_GRADIENTS, "supervised"}
    assert set(found.split()) == set(names("algorithm"))


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_unknown_options_are_refused(name) -> None:
    with pytest.raises(ValidationError):
        build(name, clip=0.2)

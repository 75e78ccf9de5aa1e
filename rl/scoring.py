"""Judged groups become scored groups: rewards, their weighted sum, its shaping, and what is logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..parts import RunError
from ..records import Group
from ..rewards.base import Reward, Shaping


def score(groups: Sequence[Group], rewards: Mapping[str, tuple[float, Reward]], shaping: Shaping) -> list[Group]:
    """The groups with `parts`, `raw_G` (the sum of weight times part) and `rewards_G` (that sum, reshaped) set.

    All three are NaN where a sample could not be graded.

    Args:
        groups: judged groups, with the annotations that `shaping` needs.
        rewards: weight and reward by name.
        shaping: what reweights the sums within a group.

    Raises:
        RunError: a reward fails, or returns something else than one finite number a sample.
    """
    return [_score(group, rewards, shaping) for group in groups]


def _score(group: Group, rewards: Mapping[str, tuple[float, Reward]], shaping: Shaping) -> Group:
    parts = {name: _part(name, reward, group) for name, (_, reward) in rewards.items()}
    raw_G = np.where(group.graded_G, 0.0, np.nan)
    for name, (weight, _) in rewards.items():
        raw_G = raw_G + weight * parts[name]
    group = replace(group, parts=parts, raw_G=raw_G)
    return replace(group, rewards_G=shaping.reshape(group))


def _part(name: str, reward: Reward, group: Group) -> np.ndarray:
    where = f"the reward {name!r} on problem {group.problem.id!r}"
    try:
        values_G = np.asarray(reward.score(group), dtype=np.float64)
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{where} failed with {type(error).__name__}: {error}") from error
    if values_G.shape != (len(group.samples),):
        raise RunError(
            f"{where} returned an array of shape {values_G.shape}; it must return one number for each of the "
            f"{len(group.samples)} samples"
        )
    graded_G = group.graded_G
    if not np.isfinite(values_G[graded_G]).all():
        bad = int(np.flatnonzero(graded_G & ~np.isfinite(values_G))[0])
        raise RunError(f"{where} returned {values_G[bad]} for sample {bad}; rewards must be finite numbers")
    return np.where(graded_G, values_G, np.nan)


def metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What is logged of scored groups, as TRL 1.16 names and defines it; samples not graded count nowhere.

    `reward` and `reward_std`: mean and unbiased deviation of the final reward over all samples.
    `frac_reward_zero_std`: share of groups whose largest reward equals the smallest. `rewards/<name>/mean` and `/std`:
    the same of one reward, unweighted. Empty when nothing was graded.
    """
    graded = [group for group in groups if group.graded_G.any()]
    if not graded:
        return {}
    within = [_graded(group.rewards_G) for group in graded]
    rewards = np.concatenate(within)
    logged = {
        "reward": float(np.mean(rewards)),
        "reward_std": _std(rewards),
        "frac_reward_zero_std": float(np.mean([rewards_G.max() == rewards_G.min() for rewards_G in within])),
    }
    for name in graded[0].parts:
        values = np.concatenate([_graded(group.parts[name]) for group in graded])
        logged[f"rewards/{name}/mean"] = float(np.mean(values))
        logged[f"rewards/{name}/std"] = _std(values)
    return logged


def _graded(values_G: np.ndarray | None) -> np.ndarray:
    assert values_G is not None
    return values_G[~np.isnan(values_G)]


def _std(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

"""The turning point: how often noise alone looks like one, how late a planted one is seen, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from underdog.parts import UserError
from underdog.records import Group, Problem, Sample, Verdict, Version
from underdog.rl.api import train
from underdog.rl.config import resolve
from underdog.rl.runs import checkpoint
from underdog.rl.turning import Turning, TurningWatch, advance, begin, needed

OPTIONS = Turning()


class Noise(NamedTuple):
    """Of format reward and mean length: level, deviation and autocorrelation at lag 1, and how the two correlate."""

    level: tuple[float, float]
    deviation: tuple[float, float]
    memory: tuple[float, float]
    together: float


MEASURED = {
    "trained": Noise((0.998, 19.77), (0.0028, 0.334), (-0.11, -0.03), -0.05),
    "untrained": Noise((0.347, 10.75), (0.033, 0.478), (0.06, 0.02), 0.95),
}
"""Of real runs of the recipe demo, 256 samples a step, a straight line taken out: the share of completions that close
their reasoning, which stands for a format reward, and the mean length. `trained`: steps 60 to 240 of a run at the
recipe's own rate; `untrained`: 160 steps at a rate of 1e-8, so that the policy stands still."""
HARDER = Noise((0.5, 2000.0), (0.07, 200.0), (0.6, 0.6), 0.5)
"""Not measured: noise that remembers, as where a step's problems resemble the last one's; the samples are 48 a step."""


def drawn(noise: Noise, runs: int, steps: int, seed: int) -> np.ndarray:
    """values_RTJ of stationary runs: Gaussian, AR(1); the reward within [0, 1]."""
    draw = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.array([[1, noise.together], [noise.together, 1]]))
    shocks_RTJ = draw.standard_normal((runs, steps, 2)) @ root.T
    memory_J = np.array(noise.memory)
    values_RTJ = np.empty_like(shocks_RTJ)
    values_RTJ[:, 0] = shocks_RTJ[:, 0]
    for t in range(1, steps):
        values_RTJ[:, t] = memory_J * values_RTJ[:, t - 1] + np.sqrt(1 - memory_J**2) * shocks_RTJ[:, t]
    return np.array(noise.level) + np.array(noise.deviation) * values_RTJ


def bounded(values_RTJ: np.ndarray) -> np.ndarray:
    """The reward as a share of 256 samples."""
    values_RTJ[..., 0] = np.round(np.clip(values_RTJ[..., 0], 0, 1) * 256) / 256
    return values_RTJ


def first_turns(values_RTJ: np.ndarray, options: Turning = OPTIONS) -> tuple[np.ndarray, np.ndarray]:
    """For each run the step at which its first turn is seen (0: never), and the step to which it is dated."""
    runs, steps, _ = values_RTJ.shape
    sums = begin(values_RTJ[:, 0], np.full((runs, 2), 1 / 256))
    seen_R, dated_R = np.zeros(runs, dtype=int), np.zeros(runs, dtype=int)
    for t in range(1, steps):
        sums = advance(sums, values_RTJ[:, t], options.settle)
        now_R = (seen_R == 0) & (sums.largest_J.min(axis=-1) > needed(sums.steps, options.threshold))
        seen_R[now_R], dated_R[now_R] = sums.steps, sums.since_J[now_R].min(axis=-1)
    return seen_R, dated_R


# --- false alarms and delay ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [240, 850])
@pytest.mark.parametrize("name", MEASURED)
def test_at_most_one_run_in_twenty_has_a_turn_in_noise_as_measured(name: str, steps: int) -> None:
    seen_R, _ = first_turns(bounded(drawn(MEASURED[name], 200, steps, seed=steps)))
    assert (seen_R > 0).mean() <= 0.05


@pytest.mark.parametrize("drift", [0.0, 4.0])
def test_nor_in_noise_that_remembers_or_on_a_steady_drift(drift: float) -> None:
    values_RTJ = drawn(HARDER, 200, 850, seed=1)
    values_RTJ += np.array(HARDER.deviation) * drift * np.linspace(0, 1, 850)[:, None]
    seen_R, _ = first_turns(values_RTJ)
    assert (seen_R > 0).mean() <= 0.05


RUN = 450
"""Steps at which the paper took its best model, Tina-RS2: 51 % of an epoch of 7,000 problems, 8 a step."""


def planted(noise: Noise, size: float, kind: str, seed: int, steps: int = RUN) -> tuple[np.ndarray, np.ndarray]:
    """200 runs, each with a turn somewhere from 30 to 70 % of its steps, after a drift the other way, and where.

    The reward falls and completions grow by `size` deviations of a step's noise within a twentieth of the run, and
    then stay there (`step`) or go on so (`bend`). No size was published, only curves whose turn is called sharp: one
    that the eye sees in an unsmoothed curve is two deviations, at the least.
    """
    values_RTJ, draw = drawn(noise, 200, steps, seed), np.random.default_rng(seed)
    turns_R = draw.integers(int(0.3 * steps), int(0.7 * steps), 200)
    gone_RT = np.maximum(np.arange(1, steps + 1) - turns_R[:, None], 0) / (steps / 20)
    gone_RT = np.minimum(gone_RT, 1) if kind == "step" else gone_RT
    drift_RT = -np.minimum(np.arange(1, steps + 1), turns_R[:, None]) / steps
    signs_J = np.array([-1, 1]) * np.array(noise.deviation)
    return values_RTJ + signs_J * (size * gone_RT + 2 * drift_RT)[..., None], turns_R


@pytest.mark.parametrize(
    ("noise", "size", "kind"),
    [
        (MEASURED["trained"], 2, "step"),
        (MEASURED["trained"], 2, "bend"),
        (MEASURED["untrained"], 2, "step"),
        (MEASURED["untrained"], 2, "bend"),
        (HARDER, 3, "step"),
        (HARDER, 2, "bend"),
    ],
)
def test_the_median_delay_is_at_most_a_tenth_of_the_run(noise: Noise, size: float, kind: str) -> None:
    values_RTJ, turns_R = planted(noise, size, kind, seed=2)
    seen_R, dated_R = first_turns(values_RTJ)
    right_R = seen_R > turns_R
    assert right_R.mean() >= 0.8
    delay_R = np.where(right_R, seen_R - turns_R, RUN)
    assert np.median(delay_R) <= 0.1 * RUN
    assert np.median(np.abs(dated_R - turns_R)[right_R]) <= 0.04 * RUN


def test_a_turn_of_one_series_alone_is_none() -> None:
    values_RTJ, _ = planted(MEASURED["trained"], 5, "bend", seed=3)
    values_RTJ[..., 0] = drawn(MEASURED["trained"], 200, RUN, seed=4)[..., 0]
    seen_R, _ = first_turns(values_RTJ)
    assert (seen_R > 0).mean() <= 0.05


# --- the residuals ------------------------------------------------------------------------------------------------


def test_residuals_are_those_of_least_squares_from_scratch() -> None:
    """Each squared residual is the error of a fit by numpy to all before it, over 1 + leverage."""
    values_T = drawn(HARDER, 1, 60, seed=5)[0, :, 1]
    sums, pairs = begin(values_T[:1], np.array([1 / 256])), []
    for t in range(1, 60):
        before, sums = sums, advance(sums, values_T[t : t + 1], settle=100)
        if t >= 8:  # before, what is assumed of the slope at first still shows
            known_TK = np.stack([np.ones(t - 1), np.arange(1.0, t), values_T[: t - 1]], axis=1)
            now_K = np.array([1.0, t, values_T[t - 1]])
            fit_K, *_ = np.linalg.lstsq(known_TK, values_T[1:t], rcond=None)
            leverage = now_K @ np.linalg.pinv(known_TK.T @ known_TK) @ now_K
            expected = (values_T[t] - now_K @ fit_K) ** 2 / (1 + leverage)
            assert before.residuals < 8 or expected < 16 * before.squares_J[0] / before.residuals  # none is held back
            pairs.append((float((sums.squares_J - before.squares_J)[0]), expected))
    found_N, expected_N = np.array(pairs).T
    np.testing.assert_allclose(found_N, expected_N, rtol=1e-2)


def test_runs_side_by_side_are_runs_alone() -> None:
    values_RTJ, _ = planted(HARDER, 3, "bend", seed=6, steps=120)
    together, dated = first_turns(values_RTJ[:5])
    for run in range(5):
        seen_R, dated_R = first_turns(values_RTJ[run : run + 1])
        assert (seen_R[0], dated_R[0]) == (together[run], dated[run])


def test_units_do_not_matter() -> None:
    values_RTJ, _ = planted(HARDER, 3, "bend", seed=7)
    seen_R, dated_R = first_turns(values_RTJ)
    others_R, again_R = first_turns(1000 * values_RTJ - 5)
    assert (seen_R > 0).mean() >= 0.9
    assert (seen_R == others_R).mean() >= 0.98
    assert (dated_R == again_R).mean() >= 0.98


def test_a_series_that_never_moves_is_no_turn_and_one_odd_step_neither() -> None:
    values_RTJ = np.zeros((1, 300, 2))
    assert first_turns(values_RTJ)[0] == [0]
    values_RTJ = drawn(MEASURED["untrained"], 1, 300, seed=8)
    values_RTJ[0, 200] += 40 * np.array(MEASURED["untrained"].deviation)
    assert first_turns(values_RTJ)[0] == [0]


# --- the watch over a run -----------------------------------------------------------------------------------------


def step_of(reward: float, length: float, parts: tuple[str, ...] = ("format",)) -> list[Group]:
    """One group of 100 samples with that mean reward and that mean length, to a hundredth."""
    ids = np.zeros(1, np.int64)
    whole, more = divmod(round(length * 100), 100)
    lengths = [whole + (i < more) for i in range(100)]
    samples = tuple(
        Sample("p", i, Version(0, ""), i, ids, np.zeros(n, np.int64), None, "", "eos") for i, n in enumerate(lengths)
    )
    rewards_G = (np.arange(100) < round(reward * 100)).astype(float)
    return [Group(Problem("p", "?"), samples, (Verdict("right"),) * 100, parts=dict.fromkeys(parts, rewards_G))]


def series(seed: int) -> list[tuple[float, float]]:
    """250 steps; after step 150 the reward falls and completions grow."""
    values_TJ = drawn(Noise((0.6, 50.0), (0.03, 1.0), (0.2, 0.2), 0.0), 1, 250, seed)[0]
    values_TJ[150:] += np.arange(100)[:, None] * np.array([-0.004, 0.15])
    return [(float(np.clip(reward, 0, 1)), float(length)) for reward, length in values_TJ]


def test_a_watch_says_a_turn_once_and_dates_it() -> None:
    said: list[str] = []
    watch = TurningWatch(Turning(), said.append)
    for step, (reward, length) in enumerate(series(0), 1):
        stats = watch.take(step, step_of(reward, length))
        assert ("turning/step" in stats) == any(turn.seen == step for turn in watch.turns)
    (turn,) = watch.turns
    assert 140 <= turn.step <= 165
    assert turn.step < turn.seen <= 190
    (sentence,) = said
    assert f"turned after {turn.step} updates, which is seen at step {turn.seen}" in sentence
    assert turn.step in watch.anchors


def test_a_resume_changes_no_figure() -> None:
    whole, halves = TurningWatch(Turning(), print), TurningWatch(Turning(), print)
    for step, (reward, length) in enumerate(series(1), 1):
        groups = step_of(reward, length)
        if step % 40 == 0:
            state = json.loads(json.dumps(halves.state_dict()))
            halves = TurningWatch(Turning(), print)
            halves.load_state_dict(state)
        assert halves.take(step, groups) == whole.take(step, groups)
        assert halves.anchors == whole.anchors
    assert halves.turns == whole.turns != []


def test_what_may_yet_become_a_turn_is_anchored_before_it_is_seen() -> None:
    """Whatever is pruned by the anchors on the way, the step of the turn finds its checkpoint."""
    watch, kept = TurningWatch(Turning(), print), set[int]()
    for step, (reward, length) in enumerate(series(2), 1):
        watch.take(step, step_of(reward, length))
        if step % 10 == 0:
            kept.add(step)
            last = {max((k for k in kept if k <= anchor), default=0) for anchor in watch.anchors}
            kept = {k for k in kept if k in last or k in sorted(kept)[-2:]}
    (turn,) = watch.turns
    assert max(k for k in kept if k <= turn.step) == turn.step // 10 * 10


def test_without_such_a_reward_nothing_is_watched() -> None:
    watch = TurningWatch(Turning(), print)
    assert watch.take(1, step_of(0.5, 10, parts=("accuracy",))) == {}
    assert watch.take(2, []) == {}
    assert (watch.turns, watch.anchors) == ([], [])


# --- what a run keeps ---------------------------------------------------------------------------------------------


def test_what_is_kept(tmp_path: Path) -> None:
    for step in range(10, 101, 10):
        (tmp_path / f"step_{step}").mkdir()
    assert checkpoint.kept(tmp_path, 2) == {90, 100}
    assert checkpoint.kept(tmp_path, 2, [47, 50, 5]) == {40, 50, 90, 100}
    checkpoint.mark_best(tmp_path, 70, "pass@1", 0.5)
    assert checkpoint.kept(tmp_path, 3, [12]) == {10, 70, 80, 90, 100}


def test_the_word_needs_the_reward_that_it_watches() -> None:
    tree: dict[str, Any] = {"model": "shape:tiny-reasoner", "data": "arithmetic"}
    with pytest.raises(UserError, match=r"watches the reward 'format', which .* turning.reward to one of accuracy"):
        resolve(tree, {"checkpoint.keep": "turning-point"})
    config = resolve(tree, {"checkpoint.keep": "turning-point", "turning.reward": "accuracy"})
    assert (config.checkpoint.keep, config.checkpoint.newest) == ("turning-point", 2)
    assert resolve(tree, {"checkpoint.keep": 5}).checkpoint.newest == 5
    for wrong in (0, "turning"):
        with pytest.raises(UserError, match=r"checkpoint\.keep"):
            resolve(tree, {"checkpoint.keep": wrong})


TURNS = """
from dataclasses import replace
from underdog.rollouts.local import Local

class Turns(Local):
    def open(self, surroundings):
        engine = super().open(surroundings)
        generate = engine.generate

        def shorter(sample):
            if sample.version.number < 31:
                return sample
            return replace(sample, tokens_T=sample.tokens_T[:2], logp_T=sample.logp_T[:2], text="0")

        engine.generate = lambda requests: [[shorter(s) for s in samples] for samples in generate(requests)]
        return engine
"""


@pytest.mark.slow
def test_a_run_keeps_the_adapter_before_its_turn_and_shows_it(tiny_recipe: Path, tmp_path: Path) -> None:
    """From 31 updates on completions have two tokens, and one even digit among one character."""
    (tmp_path / "turns.py").write_text(TURNS)
    out = tmp_path / "run"
    reward = next(name for name in resolve_rewards(tiny_recipe) if name.endswith(":even"))
    settings: dict[str, Any] = {
        "rollouts.engine": f"{tmp_path / 'turns.py'}:Turns",
        "eval": {"problems": 0},
        "checkpoint": {"every": 4, "keep": "turning-point"},
        "tracking": {"every": 0},
        "turning": {"reward": reward, "settle": 12},
    }
    train(tiny_recipe, out=str(out), steps=20, **settings)
    summary = train(tiny_recipe, out=str(out), steps=48, resume=True, **settings)
    (turn,) = summary["turning_points"]
    assert 28 <= turn["step"] <= 31 < turn["seen"] <= 40
    assert checkpoint.steps(out / "checkpoints") == [28, 44, 48]
    assert {path.name for path in (out / "adapters").glob("v*")} == {"v28", "v44", "v48"}
    assert f"turned after {turn['step']} updates" in (out / "logs" / "run.log").read_text()
    page = (out / "report.html").read_text()
    assert f"after {turn['step']} updates (seen at step {turn['seen']})" in page
    assert f"Dashed: the turning point, after {turn['step']} updates." in page


def resolve_rewards(recipe: Path) -> list[str]:
    from underdog.rl.config import read_recipe

    return list(resolve(read_recipe(str(recipe))[1]).rewards)

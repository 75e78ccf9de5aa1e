"""The whole algorithm on one page, whatever methods fill the recipe.

    Problem -> collect( engine: Sample -> verifier: Verdict ) -> Group -> score -> advantages -> loss -> step
                  ^                                                                                  |
                  +--------------------------- policy version N+1 <----------------------------------+

Checkpoint k is the state after k updates, so a run that was killed ends as one that was not: every random choice
derives from (run seed, step, problem, sample), and `learner`, `algorithm` and `collection` hold all else.

Left out here, each in a room of its own: how an engine decodes (rollouts/), how an answer is judged (verifiers/),
what a reward is (rewards/), how advantages and losses are made (algorithms/), how a model is adapted and stepped
(learner/), what is written down (runs/).
"""

from __future__ import annotations

from typing import Any

from ..parts import RunError
from ..records import Batch, Group
from . import scoring
from .assembly import Parts, assemble
from .config import Config
from .runs import uplift
from .runs.evaluation import Tally
from .runs.folder import Run, open_run

PATIENCE = 8
"""Steps in a row without any signal before a run stops: it is then not learning, and will not begin to."""


def train(config: Config, *, recipe: str = "run", model: str | None = None, resume: bool = False) -> dict[str, Any]:
    """Train what `config` describes, in a run folder, and return the summary; `model` is where its model is found.

    Raises:
        UserError: the configuration cannot be carried out, or the run's folder is taken.
        RunError: the run cannot go on; its folder stays resumable.
    """
    with open_run(config, recipe, resume=resume) as run:
        parts = assemble(run, model or config.model)
        try:
            run.meter.hold(parts.gpus)
            run.restore(parts.states, parts.tracker)
            return learn(run, parts)
        finally:
            parts.close()


def learn(run: Run, parts: Parts) -> dict[str, Any]:
    """The loop, between an evaluation of the policy as it starts and one of the policy as it ends."""
    engine, learner, algorithm, collection = parts.engine, parts.learner, parts.algorithm, parts.collection
    tracker, needs = parts.tracker, algorithm.needs
    clock, idle = run.clock, 0
    base = evaluate(run, parts, "base")
    run.start()
    for step in run.remaining_steps():
        with clock("publish"):
            version = engine.publish(learner.policy)
        groups = collection.collect(step, version, until=algorithm.enough)
        with clock("annotate"):
            groups = learner.annotate(groups, needs | run.config.shaping.needs)
        groups = scoring.score(groups, parts.rewards, run.config.shaping)
        batch = algorithm.advantages(groups)
        tracker.before(step)
        with clock("update"):
            stats = learner.update(batch, algorithm.loss, step, needs) if batch.rows else {"updates/empty": 1.0}
        idle = watch(run, groups, batch, idle)
        stats |= parts.collapse.take(groups) | parts.turning.take(step, groups)
        stats = {**collection.stats, **scoring.metrics(groups), **batch.stats, **stats, **tracker.after(step)}
        stats |= evaluate_online(run, parts, step)
        run.record(step, version, groups, stats, parts.states, tracker)
    final = evaluate(run, parts, "final")
    return run.finish(base, final, parts.turning.turns, measure_uplift(run, parts))


def watch(run: Run, groups: list[Group], batch: Batch, idle: int) -> int:
    """Say what makes a run meaningless; stop one that has had no signal for long. Returns steps without a signal."""
    samples = [sample for group in groups for sample in group.samples]
    if all(sample.stop == "length" for sample in samples):
        run.terminal.warn("every completion of a step reached rollouts.max_tokens: raise it, or rewards mean little")
    ungraded = sum(int((~group.graded_G).sum()) for group in groups)
    if ungraded:
        run.terminal.warn(f"samples that could not be graded ({ungraded} in one step) are left out of the update")
    idle = 0 if batch.rows else idle + 1
    if idle >= PATIENCE:
        raise RunError(
            f"{PATIENCE} steps in a row gave no signal (in each group all rewards were equal): take easier or harder "
            "problems, more samples a problem (rollouts.group), or a better start (init_adapter)"
        )
    return idle


def evaluate(run: Run, parts: Parts, name: str) -> Tally | None:
    """Measure the policy as it is on the held-out problems, or take the measurement that is there already."""
    known, problems = run.evaluation(name), run.config.eval.problems
    if known is not None or problems == 0 or not parts.held_out:
        return known
    run.terminal.say(f"evaluating the {name} policy on {min(problems, len(parts.held_out))} held-out problems")
    measured = parts.evaluator.measure(parts.learner.policy, problems, run.config.eval.n)
    if name == "base" and run.config.eval.uplift:
        uplift.keep(run.folder / uplift.KEPT, measured.groups, run.config.eval.uplift, parts.learner)
    run.keep_evaluation(name, measured)
    return measured.tally


def measure_uplift(run: Run, parts: Parts) -> dict[str, Any] | None:
    """What has become of the base's own samples, where the recipe asks for it and they were kept."""
    count = run.config.eval.uplift
    if count == 0 or run.evaluation("base") is None:
        return None
    before = uplift.kept(run.folder / uplift.KEPT, count)
    if before is None:
        run.terminal.warn("no uplift is measured: the base was evaluated without eval.uplift, or with a smaller one")
        return None
    return before.uplift(parts.learner)


def evaluate_online(run: Run, parts: Parts, step: int) -> dict[str, float]:
    """When due, a smaller measurement while training."""
    settings = run.config.eval
    loss = parts.held_out_loss.after(step, parts.learner) if parts.held_out_loss is not None else {}
    if settings.every == 0 or step % settings.every or not parts.held_out:
        return loss
    with run.clock("evaluate"):
        measured = parts.evaluator.measure(parts.learner.policy, settings.online_problems, settings.online_samples)
    return loss | run.keep_evaluation(f"step_{step}", measured)

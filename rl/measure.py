"""`underdog eval`: pass@N of a run's policy beside its base, or of a recipe's model as it is, on held-out problems."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..parts import RunError, UserError
from ..records import Problem
from .assembly import build_learner, load_problems, open_engine
from .config import read_recipe, recipe_names, resolve
from .freshness import Proven
from .made import find_model
from .runs.evaluation import change, to_json
from .runs.evaluator import Evaluator, Measured
from .runs.folder import read_config
from .runs.uplift import Likelihoods
from .trained import saved_state
from .vocabulary import with_words


def measure(target: str, overrides: dict[str, Any] | None = None, checkpoint: str = "last") -> dict[str, Any]:
    """The evaluation as its file in a run folder holds it; `target` is a run folder or a recipe.

    Of a run also `base`, the same of the policy that it began with, `change`, the paired difference, and where
    `eval.uplift` asks for it the `uplift` by rank of the base's own samples. In all,
    `data_sha256` stands for the problems, and `verifier` for what judged them.

    Raises:
        UserError: there is no such run, checkpoint or recipe, or no held-out problem.
        RunError: nothing could be graded.
    """
    folder = Path(target)
    is_run = folder.is_dir() and (target not in recipe_names() or (folder / "config.yaml").is_file())
    if is_run:
        config = read_config(folder, overrides)
        trained = saved_state(folder, checkpoint)
    elif len(folder.parts) > 1 and folder.suffix not in {".yaml", ".yml"}:
        raise UserError(f"there is no run {target}; give a run's folder, a recipe's name or the path of a .yaml file")
    else:
        config = resolve(read_recipe(target)[1], overrides)
        trained = None
    model = with_words(find_model(config.model), folder)
    learner = build_learner(config, model, log=lambda text: None)
    problems = load_problems(config, learner.tokenizer)
    if not problems.held_out or config.eval.problems == 0:
        raise UserError("no problem is held out to evaluate on; raise data.held_out and eval.problems")
    part = config.rollouts.engine if type(config.rollouts.engine).live else config.eval.engine
    scratch = tempfile.TemporaryDirectory(prefix="underdog-")
    engine = Proven(open_engine(config, part, learner, model, folder if is_run else Path(scratch.name)))
    surroundings = config.verifier.surroundings()
    evaluator = Evaluator(engine, config.verifier, problems.held_out, config.eval_sampling(), config.seed)

    def measured() -> tuple[Measured, dict[str, Any]]:
        found = evaluator.measure(learner.policy, config.eval.problems, config.eval.n)
        if not found.tally.graded_P.any():
            raise RunError(f"not one sample could be graded ({', '.join(found.tally.reasons)}); {surroundings}")
        named = {"version": found.version.number, "digest": found.version.digest, "name": "held_out"}
        return found, to_json(found.tally, **named)

    try:
        base, result = measured()
        if trained is not None:
            count, before = config.eval.uplift, result
            likelihoods = Likelihoods.of(base.groups, count, learner) if count else None
            learner.load_state_dict(trained)
            final, result = measured()
            result |= {"base": before, "change": change(base.tally, final.tally)}
            result |= {"uplift": likelihoods.uplift(learner)} if likelihoods else {}
    finally:
        engine.close()
        scratch.cleanup()
        config.verifier.close()
    chosen = [prompt.problem for prompt in problems.held_out[: config.eval.problems]]
    return {**result, "data_sha256": _digest(chosen), "verifier": surroundings}


def _digest(problems: Sequence[Problem]) -> str:
    """SHA-256 over the problems' ids, prompts and answers, in any order."""
    lines = sorted(json.dumps([p.id, p.prompt, p.answer]) for p in problems)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

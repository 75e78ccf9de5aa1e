"""`underdog eval`: pass@N of a run's policy, or of a recipe's model as it is, on held-out problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..parts import UserError
from ..rollouts.base import Surroundings
from .assembly import build_learner, load_problems
from .config import read_recipe, recipe_names, resolve
from .made import find_model
from .runs.evaluation import to_json
from .runs.evaluator import Evaluator
from .runs.folder import read_config
from .trained import trained_learner


def measure(target: str, overrides: dict[str, Any] | None = None, checkpoint: str = "last") -> dict[str, Any]:
    """The evaluation as its file in a run folder holds it; `target` is a run folder or a recipe.

    Raises:
        UserError: there is no such run, checkpoint or recipe, or no held-out problem.
    """
    folder = Path(target)
    is_run = folder.is_dir() and (target not in recipe_names() or (folder / "config.yaml").is_file())
    if is_run:
        config = read_config(folder, overrides)
        learner = trained_learner(folder, find_model(config.model), checkpoint, overrides)
    elif len(folder.parts) > 1 and folder.suffix not in {".yaml", ".yml"}:
        raise UserError(f"there is no run {target}; give a run's folder, a recipe's name or the path of a .yaml file")
    else:
        config = resolve(read_recipe(target)[1], overrides)
        learner = build_learner(config, find_model(config.model), log=lambda text: None)
    problems = load_problems(config, learner.tokenizer)
    if not problems.held_out or config.eval.problems == 0:
        raise UserError("no problem is held out to evaluate on; raise data.held_out and eval.problems")
    part = config.rollouts.engine if type(config.rollouts.engine).live else config.eval.engine
    engine = part.open(Surroundings(learner.tokenizer, learner.device, folder if is_run else Path()))
    try:
        evaluator = Evaluator(engine, config.verifier, problems.held_out, config.eval_sampling(), config.seed)
        version, tally = evaluator.measure(learner.policy, config.eval.problems, config.eval.n)
    finally:
        engine.close()
        config.verifier.close()
    return to_json(tally, version=version.number, digest=version.digest, name="held_out")

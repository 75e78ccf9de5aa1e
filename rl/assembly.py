"""Assembly: the configuration's parts put to work, the problems read and split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..parts import UserError, find
from ..records import derive_seed
from ..rollouts.base import Engine, EnginePart, Surroundings
from .collapse import CollapseWatch
from .collect import Collection
from .config import Config
from .data.prompts import wording
from .data.split import load
from .freshness import BOUNDS, Proven
from .gold import try_on_gold
from .learner.bitmaps import write_bitmaps
from .learner.learner import Learner
from .learner.model import pick_dtype, save_shape
from .runs.evaluator import Evaluator
from .runs.files import replacing
from .runs.folder import Run
from .runs.held_out_loss import HeldOutLoss, solutions
from .sampling import Prompt
from .turning import TurningWatch
from .updates.tracker import Tracker
from .vocabulary import choose_words, with_words

if TYPE_CHECKING:
    from .learner.group import LearnerGroup

MASKS = "mask.npz"
"""In a run's folder: bitmaps of the weights that it trains, where not all of them are."""


@dataclass(frozen=True)
class Parts:
    """All that a run puts to work, built from its configuration."""

    learner: Learner | LearnerGroup
    engine: Proven
    eval_engine: Proven
    verifier: Any
    algorithm: Any
    rewards: dict[str, Any]
    collection: Collection
    evaluator: Evaluator
    held_out_loss: HeldOutLoss | None
    tracker: Tracker
    held_out: list[Prompt]
    collapse: CollapseWatch
    turning: TurningWatch
    gpus: float
    """GPUs that learner and workers hold."""

    @property
    def states(self) -> dict[str, Any]:
        """What a checkpoint consists of."""
        return {
            "learner": self.learner,
            "algorithm": self.algorithm,
            "collection": self.collection,
            "collapse": self.collapse,
            "turning": self.turning,
        }

    def close(self) -> None:
        """Stop engines, what waits for them in the background, and worker processes."""
        for engine in {id(e): e for e in (self.engine, self.eval_engine)}.values():
            engine.close()
        self.collection.close()
        self.verifier.close()
        self.learner.close()


def build_learner(config: Config, model: str, log: Callable[[str], None], folder: Path | None = None) -> Learner:
    """The learner that a configuration describes, on `model` (an id, a folder or shape:NAME), untrained.

    `folder` is its run's, where the weights that a mask chose and the words of a vocabulary are kept.
    """
    model = model if folder is None else with_words(model, folder)
    masks = folder / MASKS if folder is not None and (folder / MASKS).is_file() else None
    return Learner(model, config.learner, **_settings(config), log=log, masks=masks)


def open_learner(config: Config, model: str, run: Run) -> Learner | LearnerGroup:
    """The learner that trains: in this process, or shared by as many ranks as the recipe says."""
    if config.learner.ranks == 1:
        choose_weights(config, model, run)
        return build_learner(config, model, run.terminal.say, run.folder)
    from .learner.group import LearnerGroup

    if type(config.learner.mask) is not find("mask", "none"):
        raise UserError("learner.mask trains some weights of a tensor, which is not sharded: set learner.ranks=1")
    return LearnerGroup(model, config.learner, run.folder / "logs", **_settings(config), log=run.terminal.say)


def _settings(config: Config) -> dict[str, Any]:
    """What a learner takes besides its model and options."""
    start = None if config.init_adapter is None else Path(config.init_adapter).expanduser()
    return {
        "seed": config.seed,
        "steps": config.steps,
        "init_adapter": start,
        "values": "values" in config.algorithm.needs,
    }


def choose_weights(config: Config, model: str, run: Run) -> None:
    """When a run with a mask begins, choose the weights that it trains, and keep them in its folder.

    Raises:
        UserError: the run trains an adapter, or the mask cannot be had.
    """
    mask, file = config.learner.mask, run.folder / MASKS
    if file.is_file() or type(mask) is find("mask", "none"):
        return
    if type(config.learner.adapter) is not find("adapter", "full"):
        raise UserError("learner.mask chooses among the model's own weights: set learner.adapter=full")
    weights = dict(build_learner(config, model, run.terminal.say).base_weights())
    chosen = mask.choose(weights, derive_seed(config.seed, "mask"))
    number, all_of_them = sum(int(own.sum()) for own in chosen.values()), sum(t.numel() for t in weights.values())
    if number == 0:
        raise UserError("learner.mask chooses no weight at all: nothing could be trained")
    run.terminal.say(f"the mask trains {number:,} of {all_of_them:,} weights ({number / all_of_them:.2%})")
    with replacing(file) as temporary:
        write_bitmaps(temporary, chosen)


def dtype_name(config: Config, learner: Learner | LearnerGroup) -> str:
    """float32 or bfloat16: of the base's weights, in the learner and in engines that load it themselves."""
    return str(pick_dtype(config.learner.dtype, learner.device)).removeprefix("torch.")


def open_engine(config: Config, part: EnginePart, learner: Learner | LearnerGroup, model: str, folder: Path) -> Engine:
    """The engine in this process, or in as many workers of its own as the recipe says.

    A base that is nowhere on disk (shape:…) is written into the run's `folder` for an engine that loads it itself.
    """
    workers, apart = config.rollouts.workers, type(part).apart
    dtype = dtype_name(config, learner)
    if apart and model.startswith("shape:"):
        model = str(save_shape(model, folder / "base", seed=derive_seed(config.seed, "model"), dtype=dtype))
    surroundings = Surroundings(learner.tokenizer, learner.device, folder, model, dtype)
    if workers is None and not apart:
        if config.rollouts.max_staleness:
            raise UserError(
                "rollouts.max_staleness above 0 generates while the learner works, which needs an engine in a process "
                "of its own: set rollouts.workers=1 or more"
            )
        return part.open(surroundings)
    from ..rollouts.workers.pool import WorkerPool

    return WorkerPool(part, surroundings, workers or 1, config.rollouts.resources)


def assemble(run: Run, model: str) -> Parts:
    """Build the learner, the problems, the engines and the verifier that a configuration names."""
    config = run.config
    choose_words(config, model, run.folder)
    model = with_words(model, run.folder)
    learner = open_learner(config, model, run)
    problems = load_problems(config, learner.tokenizer)
    if not problems.train:
        raise UserError("this recipe holds problems to evaluate on and none to train on; measure with `underdog eval`")
    run.note_data(problems.counts, problems.template_hash)
    verifier = config.verifier
    sides = [[prompt.problem for prompt in side] for side in (problems.train, problems.held_out)]
    run.terminal.say(try_on_gold(config, *sides))
    engine = Proven(open_engine(config, config.rollouts.engine, learner, model, run.folder))
    live = type(config.rollouts.engine).live
    eval_engine = engine if live else Proven(open_engine(config, config.eval.engine, learner, model, run.folder))
    collection = Collection(
        problems.train,
        engine,
        verifier,
        config.rollouts.sampling(),
        learner,
        problems=config.rollouts.problems,
        group=config.rollouts.group,
        max_draws=config.rollouts.max_draws,
        max_staleness=config.rollouts.max_staleness,
        max_gap=config.rollouts.max_gap or BOUNDS[dtype_name(config, learner)],
        live=live,
        seed=config.seed,
        clock=run.clock,
    )
    evaluator = Evaluator(eval_engine, verifier, problems.held_out, config.eval_sampling(), config.seed)
    rewards = {name: (weighted.weight, weighted.part) for name, weighted in config.rewards.items()}
    tracked = config.tracking.every
    if tracked and not type(config.learner.adapter).merges:
        run.terminal.say("changed weights are not tracked: a base in 4 bits has no effective weights")
        tracked = 0
    return Parts(
        learner,
        engine,
        eval_engine,
        verifier,
        config.algorithm,
        rewards,
        collection,
        evaluator,
        _held_out_loss(run, learner, problems),
        Tracker(learner, tracked, run.clock),
        problems.held_out,
        CollapseWatch(config.collapse, verifier, run.terminal.warn),
        TurningWatch(config.turning, run.terminal.say),
        held_gpus(config, learner),
    )


def held_gpus(config: Config, learner: Learner | LearnerGroup) -> float:
    """GPUs that a run holds: its learner's, one a rank, and those that Ray reserves for its workers."""
    from ..rollouts.workers.options import Resources
    from ..rollouts.workers.placement import demand

    ranks, rollouts = config.learner.ranks, config.rollouts
    workers = rollouts.workers or int(type(rollouts.engine).apart)
    learning = ranks * demand(Resources()).get("GPU", 0.0) if ranks > 1 else float(learner.device.startswith("cuda"))
    return learning + (workers * demand(rollouts.resources).get("GPU", 0.0) if workers else 0.0)


def _held_out_loss(run: Run, learner: Learner | LearnerGroup, problems: Problems) -> HeldOutLoss | None:
    """Of the problems that are evaluated before and after training, where the recipe asks for it."""
    chosen, every = problems.held_out[: run.config.eval.problems], run.config.eval.loss_every
    if every == 0 or not chosen:
        return None
    gold = find("engine", "gold")().open(Surroundings(learner.tokenizer, learner.device, run.folder))
    return HeldOutLoss(solutions(gold, learner.policy, chosen, run.config.rollouts.sampling()), every)


@dataclass(frozen=True)
class Problems:
    """Prompts to train on and prompts held out, and what was counted on the way."""

    train: list[Prompt]
    held_out: list[Prompt]
    counts: dict[str, int]
    template_hash: str


def load_problems(config: Config, tokenizer: Any) -> Problems:
    """The recipe's problems, split, worded and tokenised."""
    split = load(config.data, config.seed)
    prompts = wording(config.data, tokenizer)
    train, counts = prompts.fit(split.train)
    held_out, apart = prompts.fit(split.held_out)
    return Problems(
        [Prompt(problem, ids) for problem, ids in train],
        [Prompt(problem, ids) for problem, ids in held_out],
        {**split.counts, **counts, **{f"held_out/{name}": number for name, number in apart.items()}},
        prompts.hash,
    )

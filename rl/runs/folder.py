"""The run folder: one run's configuration, metrics, samples, checkpoints and evaluations, and where a resume goes on.

A folder is never reused silently. Whatever moment a run is killed at, the folder resumes from its newest checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ...parts import RunError, UserError
from ...records import Group, Version
from ..config import Config, parse_yaml, resolve, to_tree, to_yaml
from . import checkpoint, cost, evaluation
from .clock import Clock
from .files import append_line, discard, keep_lines, sweep, write_json, write_lines, write_text
from .locks import take
from .metrics import Metrics, open_trackers
from .reading import LOCK
from .report.build import write_report
from .report.terminal import closing_table
from .samples import sample_rows
from .terminal import Terminal

if TYPE_CHECKING:
    from ..turning import Turn
    from ..updates.tracker import Tracker
    from .evaluator import Measured

MAY_CHANGE = ("steps", "checkpoint", "eval", "collapse", "turning", "cost", "trackers", "out")
"""Keys to which a resume may give another value: how long a run goes on and how it is watched, not what it does."""


TIMELINE = Path("logs") / "timeline.jsonl"
"""When each stage of each step ran."""


@dataclass
class Run:
    """One run in its folder; use as a context manager."""

    folder: Path
    config: Config
    recipe: str
    terminal: Terminal
    metrics: Metrics
    meter: cost.Meter
    lock: TextIO
    fresh: bool
    """Whether this process made the folder."""
    clock: Clock = field(default_factory=Clock)
    step: int = 0
    """Updates done."""
    tokens: float = 0.0
    """Tokens sampled for training."""
    seconds_before: float = 0.0
    """Seconds of earlier attempts, up to the checkpoint that this one took up."""
    opened: float = field(default_factory=time.perf_counter)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        unused = isinstance(error, UserError) and self.fresh and self.step == 0
        if error is not None and not unused:
            self._note_failure(error)
        with contextlib.ExitStack() as closing:  # all of them, though one may meet a full disk
            closing.callback(self.lock.close)
            closing.callback(self.meter.close)
            closing.callback(self.terminal.close)
            closing.callback(self.metrics.close)
        if unused:  # bad input found while assembling: the same command with better input finds the name free
            discard(self.folder)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run, evaluations and earlier attempts included."""
        return self.seconds_before + time.perf_counter() - self.opened

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints stand."""
        return self.folder / "checkpoints"

    def restore(self, parts: Mapping[str, Any], tracker: Tracker) -> None:
        """Take up the newest checkpoint, if there is one, and forget what was written after it."""
        newest = checkpoint.latest(self.checkpoints)
        if newest is not None:
            saved = checkpoint.load(newest)
            for name, part in parts.items():
                state = saved.state[name]
                tensors = {"tensors": saved.tensors, "json": state} if name == "learner" else state
                part.load_state_dict(tensors)
            tracker.load(self.folder / "updates" / f"step_{saved.step}")
            self.step, self.tokens = saved.step, saved.state["run"]["tokens"]
            self.seconds_before = saved.state["run"]["seconds"]
            self.terminal.say(f"resuming after step {self.step} from {newest}")
        self._forget_after(self.step)

    def remaining_steps(self) -> Iterator[int]:
        """The numbers of the updates still to do, from 1."""
        while self.step < self.config.steps:
            self.terminal.stage(f"step {self.step + 1} of {self.config.steps}")
            yield self.step + 1

    def record(
        self,
        step: int,
        version: Version,
        groups: Sequence[Group],
        stats: Mapping[str, float],
        parts: Mapping[str, Any],
        tracker: Tracker,
    ) -> None:
        """Write one step's samples, the version that it sampled from, its metrics and, when due, a checkpoint."""
        write_lines(self.folder / "rollouts" / f"step_{step}.jsonl", sample_rows(step, groups))
        served = {"step": step, "version": version.number, "sha256": version.digest}
        append_line(self.folder / "adapters" / "digests.jsonl", served)
        timing, spans = self.clock.take()
        append_line(self.folder / TIMELINE, {"step": step, "spans": [list(span) for span in spans]})
        self.step = step
        self.tokens += stats["completions/tokens"]
        self.metrics.write(step, {**stats, **timing})
        self.meter.count(sampled=stats["completions/tokens"], trained=stats.get("tokens", 0))
        self.meter.save()
        self.terminal.step(step, self.config.steps, {**stats, **timing})
        due = step % self.config.checkpoint.every == 0 or step == self.config.steps
        if due or self._is_best(step):
            self.save(step, parts, tracker)

    def save(self, step: int, parts: Mapping[str, Any], tracker: Tracker) -> None:
        """Checkpoint `step`: adapter folder, update map, digest, state; then let go of older ones."""
        learner = parts["learner"].state_dict()
        state = {name: part.state_dict() for name, part in parts.items() if name != "learner"}
        state |= {"learner": learner["json"], "run": {"seconds": self.seconds, "tokens": self.tokens}}
        parts["learner"].save_adapter(self.folder / "adapters" / f"v{step}")
        tracker.save(self.folder / "updates" / f"step_{step}")
        checkpoint.save(self.checkpoints, checkpoint.Checkpoint(step, learner["tensors"], state))
        options = self.config.checkpoint
        anchors = parts["turning"].anchors if options.keep == "turning-point" else ()
        keep = checkpoint.kept(self.checkpoints, options.newest, anchors)
        checkpoint.prune(self.checkpoints, keep)
        for path in (self.folder / "adapters").glob("v*"):
            if int(path.name[1:]) not in keep:
                discard(path)
        tracker.prune(self.folder / "updates", keep)

    def start(self) -> None:
        """Begin the first step's clock; what came before (loading, evaluating the base) is not its time."""
        self.clock.take()

    def note_data(self, counts: Mapping[str, int], template: str) -> None:
        """Say and write down how many problems there are, and what was left out."""
        self.terminal.say(
            f"{counts['prompts/kept']} problems to train on, {counts['held_out/prompts/kept']} held out, "
            f"{counts['data/duplicates'] + counts['data/overlap']} duplicates and {counts['prompts/too_long']} "
            f"too long left out, {counts['prompts/cut']} prompts cut; template {template}"
        )
        write_json(self.folder / "data.json", {**counts, "template": template})

    def evaluation(self, name: str) -> evaluation.Tally | None:
        """An evaluation that was already made (`base`, `step_N`, `final`), or None."""
        path = self.folder / "evaluations" / f"{name}.json"
        return evaluation.read(path) if path.is_file() else None

    def keep_evaluation(self, name: str, measured: Measured) -> dict[str, float]:
        """Write an evaluation down and return its metrics; one while training may make its step the best so far."""
        version, tally, _ = measured
        value = evaluation.to_json(tally, version=version.number, digest=version.digest, name="held_out")
        write_json(self.folder / "evaluations" / f"{name}.json", value)
        self.meter.count(evaluated=measured.tokens)
        self.meter.save()
        best = checkpoint.best(self.checkpoints)
        score = value.get("pass@1")
        if name.startswith("step_") and score is not None and (best is None or score > best["value"]):
            checkpoint.mark_best(self.checkpoints, version.number, "pass@1", score)
        means = {key: x for key, x in value.items() if key.startswith("pass@")} | evaluation.figures(tally.report)
        means |= {"unique_right": value["unique_right"]["mean"]} if "unique_right" in value else {}
        return {f"eval/held_out/{key}": x for key, x in means.items()}

    def finish(
        self,
        base: evaluation.Tally | None,
        final: evaluation.Tally | None,
        turns: Sequence[Turn] = (),
        uplift: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write summary.json and return it."""
        change = evaluation.change(base, final) if base and final else None
        summary: dict[str, Any] = {
            "recipe": self.recipe,
            "model": self.config.model,
            "seed": self.config.seed,
            "steps": self.step,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "base": evaluation.summarise(base) if base else None,
            "final": evaluation.summarise(final) if final else None,
            "change": change,
            "uplift": uplift,
            "cost": cost.summarise(self.meter.save(), self.config.cost, (change or {}).get("pass@1")),
            "best": checkpoint.best(self.checkpoints),
            "turning_points": [turn.to_json() for turn in turns],
            "versions": installed_versions(),
        }
        write_json(self.folder / "summary.json", summary)
        if base and final:
            self.terminal.show(closing_table(summary))
        self.terminal.say(f"report: {write_report([self.folder])}")
        return summary

    def _note_failure(self, error: BaseException) -> None:
        if not isinstance(error, UserError | RunError):  # those say themselves what to do
            error.add_note(f"the same command with out={self.folder} --resume goes on")
        with contextlib.suppress(OSError):  # such as a full disk: the error itself is what is told
            write_json(self.folder / "failure.json", {"error": str(error) or type(error).__name__})

    def _is_best(self, step: int) -> bool:
        best = checkpoint.best(self.checkpoints)
        return best is not None and best["step"] == step

    def _forget_after(self, step: int) -> None:
        for name in ("rollouts", "evaluations", "adapters", "updates"):
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            sweep(folder)
            for path in [*folder.glob("step_*"), *folder.glob("v*")]:
                if int(path.stem.removeprefix("step_").removeprefix("v")) > step:
                    discard(path)
        for name in (Path("adapters") / "digests.jsonl", TIMELINE):
            keep_lines(self.folder / name, lambda row: row["step"] <= step)
        discard(self.folder / "evaluations" / "final.json")
        discard(self.folder / "summary.json")
        best = checkpoint.best(self.checkpoints)
        if best and best["step"] > step:
            discard(self.checkpoints / "best.json")
        self.metrics.rewind(step)


def open_run(config: Config, recipe: str, *, resume: bool) -> Run:
    """Make the run's folder, or take up the one that is there.

    Raises:
        UserError: the folder exists and this is no resume; it holds no run, or a run with another configuration.
        RunError: another process is at work in it.
    """
    folder = Path(config.out) if config.out else _next_free(recipe)
    if resume:
        _check_resume(folder, config)
    elif folder.exists():
        raise UserError(f"{folder} exists; choose another `out`, or add --resume to continue the run in it")
    (folder / "logs").mkdir(parents=True, exist_ok=resume)
    with contextlib.ExitStack() as undo:
        if not resume:
            undo.callback(discard, folder)
        lock = undo.enter_context(_lock(folder))
        config = config.model_copy(update={"out": str(folder)})
        discard(folder / "failure.json")
        write_text(folder / "config.yaml", to_yaml(config))
        write_json(folder / "recipe.json", {"recipe": recipe})
        terminal = Terminal(folder / "logs" / "run.log")
        undo.callback(terminal.close)
        metrics = Metrics(folder, open_trackers(config.trackers, folder, to_tree(config)))
        undo.callback(metrics.close)
        meter = cost.Meter(folder / cost.FILE, fresh=not resume)
        undo.pop_all()
    return Run(folder, config, recipe, terminal, metrics, meter, lock, fresh=not resume)


def read_config(folder: Path, overrides: dict[str, Any] | None = None) -> Config:
    """The resolved configuration of a run, with dotted overrides on top.

    Raises:
        UserError: the folder holds no run.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} holds no run (no config.yaml); give the folder of a run, such as runs/demo-1")
    return resolve(parse_yaml(path.read_text(encoding="utf-8"), str(path)), overrides)


def installed_versions() -> dict[str, str]:
    """Versions of what a result may depend on; absent packages left out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("underdog-rl", "torch", "transformers", "peft", "vllm", "datasets", "math-verify", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _check_resume(folder: Path, config: Config) -> None:
    before, now = to_tree(read_config(folder)), to_tree(config)
    changed = [key for key in now if key not in MAY_CHANGE and before.get(key) != now[key]]
    if changed:
        raise UserError(
            f"the run in {folder} was started with another {', '.join(changed)}; resume it with the same "
            f"configuration (only {', '.join(MAY_CHANGE[:-1])} may differ), or start a new run"
        )
    if config.steps < (done := _done(folder)):
        raise UserError(f"the run in {folder} has done {done} steps; steps={config.steps} is less")


def _done(folder: Path) -> int:
    return max(checkpoint.steps(folder / "checkpoints"), default=0)


def _next_free(recipe: str) -> Path:
    taken = {path.name for path in Path("runs").glob(f"{recipe}-*")}
    number = next(n for n in range(1, len(taken) + 2) if f"{recipe}-{n}" not in taken)
    return Path("runs") / f"{recipe}-{number}"


def _lock(folder: Path) -> TextIO:
    lock = take(folder / LOCK)
    if lock is None:
        raise RunError(f"another process is training in {folder}; wait for it, or choose another `out`")
    return lock

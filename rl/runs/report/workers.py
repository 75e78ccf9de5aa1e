"""Would more workers help? What the model of step time says of a run's own stage times."""

from __future__ import annotations

from collections.abc import Mapping

from ..reading import Run
from ..scaling import StageTimes, enough_workers, step_seconds
from .charts import short

CONSIDERED = (1, 2, 4, 8)


def workers_note(run: Run) -> str:
    """Two sentences, or nothing for a run whose engine was in the learner's own process."""
    rollouts = run.config.get("rollouts")
    if not isinstance(rollouts, Mapping) or not isinstance(workers := rollouts.get("workers"), int) or not run.metrics:
        return ""
    overlapped = bool(rollouts.get("max_staleness"))
    times = StageTimes.of(run.metrics, workers, overlapped)
    took = [f"{short(step_seconds(times, n, overlapped=overlapped))} s with {n}" for n in CONSIDERED]
    enough = enough_workers(times, overlapped=overlapped)
    return (
        f"By this run's stage times (publish {short(times.publish)} s, generate {short(times.generate)} s with "
        f"{workers} worker{'s' * (workers > 1)}, verify {short(times.verify)} s, learn {short(times.learn)} s) a step "
        f"takes at best {', '.join(took)} workers, each on cores of its own. "
        f"Twice as many as {enough} would save less than a twentieth."
    )

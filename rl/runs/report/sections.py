"""The sections of a report, one function each: runs in, a section or None out, in the order of `SECTIONS`.

A new section is a function in that tuple. Whatever comes from a run is escaped by `h` or drawn by the page's script
as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..reading import PassAt, Run, is_number
from .charts import Family, evaluation_charts, family_charts, pass_curves, short, with_turns
from .diversity import diversity
from .figures import interval
from .page import Section, h, table_html
from .reported import reported
from .spending import spending
from .timeline import timeline_chart
from .updates import map_sections
from .workers import workers_note

REWARD = (
    Family(
        "Reward",
        "reward",
        spread="reward_std",
        note="Mean over the step's samples.",
    ),
    Family("Parts of the reward", r"rewards/(.+)/mean", note="Unweighted means."),
    Family(
        "Groups without a signal",
        r"(frac_reward_zero_std)",
        percent=True,
        note="Share of groups whose rewards are all equal.",
    ),
)
UNIQUE = Family("Different right samples", r"eval/(.+)/unique_right", "a problem", smooth=False)
OUTCOMES = {"right": "right", "wrong": "wrong", "could_not_grade": "ungraded"}
COMPLETIONS = (
    Family(
        "Length",
        r"completions/(mean|max|min)_length",
        "tokens",
        labels={"mean": "mean", "max": "longest", "min": "shortest"},
    ),
    Family("Cut off at the token limit", r"completions/clipped_ratio", percent=True),
    Family("Stop reasons", r"stop/(.+)", "share", style="share"),
    Family("Verdicts", r"verify/([^/]+)", "share", style="share", labels=OUTCOMES),
    Family(
        "Answers",
        r"answers/(.+)",
        percent=True,
        labels={"top_share": "most frequent, of the valid", "invalid": "invalid, of all"},
    ),
    Family("Reasons of verdicts", r"verify/reason/(.+)", percent=True, note="Share of all samples."),
    Family(
        "On the way to a turning point",
        r"turning/(reward|length)",
        percent=True,
        smooth=False,
        note="How far each has left its own past, of what makes a turn: that takes both.",
    ),
)
TURNING = ("reward", "completions")
"""Sections in whose charts turning points are drawn."""
POLICY = (
    Family("Entropy", "entropy", "nats a token"),
    Family("KL to the reference", "kl", "nats a token"),
    Family("KL coefficient", "kl_coefficient", smooth=False),
    Family(
        "Mismatch of engine and learner",
        "mismatch_kl",
        "nats a token",
        note="KL between the engine's log-probs and the learner's own: near 0 when samples came from this policy.",
    ),
    Family(
        "Proof of freshness",
        "freshness/gap",
        "nats",
        note="Largest difference of a sampled token's log-prob between the engine and the learner as it then was.",
    ),
    Family("Age of the samples", "rollouts/staleness", "updates", smooth=False),
    Family("Clipped", r"clip_ratio/(.+?)(?:_mean)?", percent=True, note="Share of tokens beyond the clip range."),
    Family("Values and returns", r"critic/(value|return)", note="Means over the step's tokens."),
    Family(
        "What the critic explains",
        "critic/explained_variance",
        percent=True,
        note="Share of the returns' variance; below 0 the values mislead.",
    ),
)
OPTIMISATION = (
    Family(
        "Loss",
        r"loss(?:/mean)?",
        note="A loss near 0 is normal for GRPO and its kin, whose advantages cancel within a group. Watch the reward.",
    ),
    Family("Learning rate", r"lr|learning_rate", smooth=False),
    Family("Gradient norm", r"(grad_norm.*)"),
)
UPDATES = (
    Family(
        "Weights since the run's model",
        r"updates/(unchanged|never_touched|moved|reverted)",
        percent=True,
        smooth=False,
        labels={"unchanged": "unchanged", "never_touched": "never touched", "moved": "moved by the step"},
        note="Shares of all effective weights, as stored; reverted: changed before, equal again now.",
    ),
    Family("Norm of the update by module", r"updates/norm/(.+)", smooth=False),
    Family("Norm of a step by module", r"updates/step_norm/(.+)", smooth=False),
    Family("Norm of A and B by module", r"updates/((?:A|B)/norm/.+)", smooth=False),
    Family("Weights of A and B", r"updates/((?:A|B)/(?:unchanged|never_touched|moved|reverted))", percent=True),
    Family("Norm of a step in A and B", r"updates/((?:A|B)/step_norm/.+)", smooth=False),
)
COST = (
    Family("Time by stage", r"time/(?!step$)(.+)", "seconds a step", style="stack", total="time/step"),
    Family("Memory", r"memory/(.+)"),
)
FAULTS = (
    Family("Faults", r"faults/(.+)", smooth=False),
    Family(
        "Dropped, skipped, masked",
        r"(.*(?:dropped|skip|masked|truncated|draws|absent|stale|empty|too_long).*)",
        smooth=False,
    ),
)


def build_sections(runs: Sequence[Run]) -> list[Section]:
    """All sections that these runs have something for, and one with every metric that none of them showed."""
    sections = [section for make in SECTIONS if (section := make(runs)) is not None]
    shown = frozenset(key for section in sections for chart in section.charts for key in chart.keys)
    rest = _rest(runs, shown)
    return [*sections, *([rest] if rest else []), configuration(runs)]


def outcome(runs: Sequence[Run]) -> Section:
    """What the runs achieved: base against trained, as a table and as curves."""
    table = _closing(runs[0]) if len(runs) == 1 else _closing_side_by_side(runs)
    note = "95 % intervals by resampling problems. ▲ rises, ▼ falls; neither where the paired interval holds 0."
    body = f'{table}<p class="note">{h(note)}</p>' if table else "<p>There is no evaluation yet.</p>"
    return Section("result", "Base against trained", body, tuple(pass_curves(runs)))


def differences(runs: Sequence[Run]) -> Section | None:
    """The keys of the configurations in which several runs differ; `out` aside, which always does."""
    if len(runs) < 2:
        return None
    flat = [dict(flatten(run.config)) for run in runs]
    keys = sorted({key for one in flat for key in one} - {"out"})
    differing = [key for key in keys if len({repr(one.get(key, "—")) for one in flat}) > 1]
    if not differing:
        return Section("differences", "Where the recipes differ", "<p>Nowhere: the configurations are equal.</p>")
    rows = [[h(key), *(f"<code>{h(one.get(key, '—'))}</code>" for one in flat)] for key in differing]
    head = ["key", *(h(run.name) for run in runs)]
    return Section("differences", "Where the recipes differ", table_html(head, rows))


def problems(runs: Sequence[Run]) -> Section | None:
    """How many problems there were, and what was left out."""
    keys = list(dict.fromkeys(key for run in runs for key in run.data))
    if not keys:
        return None
    rows = [[h(key), *(h(run.data.get(key, "—")) for run in runs)] for key in keys]
    return Section("problems", "Problems", table_html(["", *(h(run.name) for run in runs)], rows))


def evaluation(runs: Sequence[Run]) -> Section | None:
    """pass@N on held-out problems while training, and the different right samples."""
    charts = [*evaluation_charts(runs), *family_charts(runs, UNIQUE)]
    return Section("evaluation", "Evaluation while training", charts=tuple(charts)) if charts else None


def _families(id: str, title: str, families: Iterable[Family]) -> Callable[[Sequence[Run]], Section | None]:
    def section(runs: Sequence[Run]) -> Section | None:
        charts = [chart for family in families for chart in family_charts(runs, family)]
        charts = with_turns(charts, runs) if id in TURNING else charts
        return Section(id, title, charts=tuple(charts)) if charts else None

    return section


def updates(runs: Sequence[Run]) -> Section | None:
    """Which weights changed: the newest checkpoint's map (of a single run), and the counts over steps."""
    charts = [chart for family in UPDATES for chart in family_charts(runs, family)]
    tree = runs[0].updates if len(runs) == 1 else None
    body = ""
    if tree is not None:
        first = map_sections(tree)[0]
        body, charts = first.body, [*first.charts, *charts]
    return Section("updates", "Which weights changed", body, tuple(charts)) if charts else None


def cost(runs: Sequence[Run]) -> Section | None:
    """What was spent, time by stage, when each stage ran (of a single run), and memory."""
    charts = [chart for family in COST for chart in family_charts(runs, family)]
    drawn = timeline_chart(runs[0]) if len(runs) == 1 else None
    charts[1:1] = [drawn] if drawn else []
    note = workers_note(runs[0]) if len(runs) == 1 else ""
    body = spending(runs) + (f'<p class="note">{h(note)}</p>' if note else "")
    return Section("cost", "Cost, time and memory", body, tuple(charts)) if charts or body else None


SECTIONS: tuple[Callable[[Sequence[Run]], Section | None], ...] = (
    outcome,
    diversity,
    reported,
    differences,
    _families("reward", "Reward", REWARD),
    evaluation,
    _families("completions", "Completions", COMPLETIONS),
    _families("policy", "Policy", POLICY),
    _families("optimisation", "Optimisation", OPTIMISATION),
    updates,
    cost,
    _families("faults", "Faults, skips and drops", FAULTS),
    problems,
)


def configuration(runs: Sequence[Run]) -> Section:
    """Each run's resolved configuration as it stands in its folder."""
    blocks = []
    for i, run in enumerate(runs):
        name = f"<h3>{h(run.name)}</h3>" if len(runs) > 1 else ""
        text = h(run.config_text) if run.config_text else "not in the run folder"
        blocks.append(
            f'{name}<div class="config"><button type="button" class="copy" data-copies="config-{i}">Copy</button>'
            f'<pre id="config-{i}" tabindex="0" aria-label="Configuration of {h(run.name)}">{text}</pre></div>'
        )
    return Section("configuration", "Configuration", "".join(blocks))


def overview(runs: Sequence[Run]) -> str:
    """The facts of each run, and what could not be read of it."""
    facts = [_facts(run) for run in runs]
    labels = list(dict.fromkeys(label for fact in facts for label in fact))
    if len(runs) == 1:
        cells = "".join(f"<div><dt>{h(k)}</dt><dd>{v}</dd></div>" for k, v in facts[0].items())
        body = f'{_tiles(runs[0])}<dl class="facts">{cells}</dl>'
    else:
        rows = [[h(label), *(fact.get(label, "—") for fact in facts)] for label in labels]
        body = table_html(["", *(h(run.name) for run in runs)], rows)
    notes = [(run.name, note) for run in runs for note in run.notes]
    items = "".join(f"<li>{h(name) + ': ' if len(runs) > 1 else ''}{h(note)}</li>" for name, note in notes)
    return body + (f'<ul class="notes" aria-label="What could not be read">{items}</ul>' if items else "")


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and values of a nested mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def duration(seconds: float) -> str:
    """Seconds as a reader says them: `48 s`, `7 min 12 s`, `3 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def direction(change: PassAt | None) -> str:
    """What the paired interval says: `rises`, `falls`, or nothing where it holds 0 or there is none."""
    if change is None or change.low is None or change.high is None:
        return ""
    return "rises" if change.low > 0 else "falls" if change.high < 0 else ""


def _facts(run: Run) -> dict[str, str]:
    """Label to HTML."""
    summary, config = run.summary or {}, run.config
    steps = config.get("steps")
    facts: dict[str, object] = {
        "Recipe": run.recipe,
        "Model": config.get("model"),
        "Data": _chosen(config.get("data")),
        "Algorithm": _chosen(config.get("algorithm")),
        "Seed": summary.get("seed", config.get("seed")),
        "Steps": f"{run.step} of {steps}" if steps is not None else run.step,
        "Time": duration(summary["seconds"]) if isinstance(summary.get("seconds"), int | float) else None,
        "Tokens": f"{summary['tokens']:,.0f}" if isinstance(summary.get("tokens"), int | float) else None,
        "Best checkpoint": _best(summary.get("best")),
        "Turning point": ", ".join(f"after {step} updates (seen at step {seen})" for step, seen in run.turns),
    }
    shown = {"Status": _status(run)}
    shown |= {label: h(value) for label, value in facts.items() if value not in (None, "")}
    versions = summary.get("versions")
    if isinstance(versions, Mapping) and versions:
        shown["Software"] = ", ".join(f"{h(name)} {h(number)}" for name, number in versions.items())
    return shown


def _status(run: Run) -> str:
    words = str(run.status)
    if run.status == "failed":
        words = f"failed: {run.error}"
    elif run.status != "finished":
        words += f"; last written {duration(round(run.idle))} before this report"
    return f'<span class="status {run.status}">{h(words)}</span>'


def _best(best: object) -> str:
    if not isinstance(best, Mapping) or not is_number(best.get("value")):
        return ""
    return f"step {best.get('step')} ({best.get('metric', 'pass@1')} {short(best['value'])})"


def _chosen(block: object) -> object:
    """The name in a block that chooses one of a kind."""
    return block.get("name") if isinstance(block, Mapping) else block


def _tiles(run: Run) -> str:
    """The two or three numbers a reader looks for first."""
    base = {p.n: p for p in run.passes("base")}
    final = {p.n: p for p in run.passes("final")}
    change = {p.n: p for p in run.change()}
    both = sorted(base.keys() & final.keys())

    def moved(n: int) -> str:
        return interval(change.get(n) or PassAt(n, final[n].mean - base[n].mean), signed=True)

    tiles = [
        (f"pass@{n}", f"{base[n].mean:.3f} → {final[n].mean:.3f}", moved(n))
        for n in dict.fromkeys([*both[:1], *both[-1:]])
    ]
    _, rewards = run.series("reward")
    if len(rewards) > 1:
        tiles.append(("mean reward", f"{short(rewards[0])} → {short(rewards[-1])}", "first step to last"))
    cells = "".join(
        f'<div class="tile"><p class="label">{h(label)}</p><p class="value">{h(value)}</p>'
        f'<p class="aside">{h(aside)}</p></div>'
        for label, value, aside in tiles
    )
    return f'<div class="tiles">{cells}</div>' if tiles else ""


def _closing(run: Run) -> str:
    """A row for each N; empty without any evaluation."""
    cells = _closing_cells(run)
    rows = [[f"pass@{n}", *cells[n]] for n in sorted(cells)]
    table = table_html(["", "base", "trained", "paired change"], rows)
    return f'{table}<p class="note">{h(_measured(run))}</p>' if rows else ""


def _closing_side_by_side(runs: Sequence[Run]) -> str:
    """A column for each run, three rows for each N."""
    cells = [_closing_cells(run) for run in runs]
    rows = [
        [f"pass@{n} {word}", *(block[n][i] if n in block else "—" for block in cells)]
        for n in sorted({n for block in cells for n in block})
        for i, word in enumerate(("base", "trained", "paired change"))
    ]
    measured = ["measured on", *(h(_measured(run)) for run in runs)]
    return table_html(["", *(h(run.name) for run in runs)], [*rows, measured]) if rows else ""


def _closing_cells(run: Run) -> dict[int, list[str]]:
    """N to base, trained and paired change, as HTML."""
    base, final, change = ({p.n: p for p in block} for block in (run.passes("base"), run.passes("final"), run.change()))
    return {
        n: [*(interval(block[n]) if n in block else "—" for block in (base, final)), _moved(change.get(n))]
        for n in base.keys() | final.keys()
    }


def _measured(run: Run) -> str:
    final = (run.summary or {}).get("final")
    if not isinstance(final, Mapping):
        return "the newest evaluations so far"
    return f"{final.get('problems', '?')} problems, {final.get('samples', '?')} samples each"


def _moved(change: PassAt | None) -> str:
    if change is None:
        return "—"
    said = direction(change)
    mark = {"rises": "▲ ", "falls": "▼ "}.get(said, "")
    return f'<span class="{said or "unclear"}">{mark}{interval(change, signed=True)}</span>'


def _rest(runs: Sequence[Run], shown: frozenset[str]) -> Section | None:
    left = sorted({key for run in runs for key in run.keys} - shown)
    charts = [chart for key in left for chart in family_charts(runs, Family(key, re.escape(key)))]
    return Section("other", "Every other metric", charts=tuple(charts), folded=True) if charts else None

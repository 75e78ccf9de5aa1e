"""The command line: one file a command; heavy imports come after parsing, so that --help is quick."""

from __future__ import annotations

import typer

from . import analyze, doctor, evaluate, export, recipes, report, study, train, verify
from .errors import told

app = typer.Typer(
    name="underdog",
    help="RL post-training for tiny reasoners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(told(train.train))
app.command("eval")(told(evaluate.evaluate))
app.command("verify")(told(verify.verify))
app.add_typer(analyze.app, name="analyze")
app.command("report")(told(report.report))
app.command("study")(told(study.study))
app.command("export")(told(export.export))
app.command("recipes")(told(recipes.recipes))
app.command("doctor")(told(doctor.doctor))


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted, 143 terminated."""
    app()

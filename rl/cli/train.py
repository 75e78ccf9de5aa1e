"""`underdog train RECIPE [key=value …]`."""

from __future__ import annotations

from typing import Annotated

import typer

RECIPE = Annotated[str, typer.Argument(help="A recipe's name (see `underdog recipes`), or the path of a .yaml file.")]
OVERRIDES = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides, such as learner.lr=1e-4.")
]
DRY_RUN = "Print the resolved configuration, try data, prompts, adapter and verifier without weights, and stop."
REHEARSE = "Take one step at a reduced length with random weights, measure it, project it on named GPUs, and stop."


def train(
    recipe: RECIPE,
    overrides: OVERRIDES = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in `out`.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=DRY_RUN)] = False,
    rehearsal: Annotated[bool, typer.Option("--rehearse", help=REHEARSE)] = False,
) -> None:
    """Train what a recipe describes, into a run folder of its own."""
    from ..config import parse_overrides, read_recipe, resolve, to_yaml

    name, tree = read_recipe(recipe)
    config = resolve(tree, parse_overrides(overrides or []))
    if dry_run:
        from ..checks import check
        from ..plan import plan
        from ..reach import settle

        typer.echo(to_yaml(config))
        typer.echo(plan(config, name))
        settle(config)
        check(config, typer.echo)
        return
    if rehearsal:
        from ..rehearsal.shown import shown
        from ..rehearsal.step import rehearse

        typer.echo(shown(rehearse(config, typer.echo), config, name))
        return
    if resume and config.out is None:
        from ...parts import UserError

        raise UserError("--resume needs the run's folder: add out=runs/NAME")
    from .. import api

    api.train(recipe, resume=resume, **parse_overrides(overrides or []))

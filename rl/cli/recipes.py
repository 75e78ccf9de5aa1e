"""`underdog recipes`."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")] = False,
) -> None:
    """List the recipes that come with the package, print one, or print their JSON schema."""
    from ..config import RECIPES, Config, read_recipe, recipe_names

    if schema:
        typer.echo(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | Config.model_json_schema()))
    elif name is not None:
        read_recipe(name)
        typer.echo((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"), nl=False)
    else:
        from .shown import listing

        typer.echo(listing(RECIPES / f"{known}.yaml" for known in recipe_names()))

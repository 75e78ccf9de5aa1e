"""A study's grid: a recipe, arms that each change some of its keys, and seeds; read strictly from YAML.

recipe: demo
overrides: {steps: 48}                # dotted keys, for every run
seeds: [0, 1, 2]
arms:                                 # name -> dotted keys on top
  plain: {}
  again: {init_adapter: "{plain}/adapters/v48"}    # "{plain}" is the folder of that arm's run of the same seed
analysis: arms
short: {seeds: [0], overrides: {steps: 4}}         # what --short changes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from ...parts import Options, UserError, nearest
from ..choices import Choice
from ..config import RECIPES, first_comment, parse_yaml
from ..suggestions import explain

STUDIES = RECIPES / "studies"
OWN = ("seed", "out")
"""Keys that a study sets itself."""

Overrides = dict[str, Any]
"""Dotted keys and their values; a later key acts on what the earlier ones made."""


class Short(Options):
    """What the short form of a study changes."""

    seeds: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)
    """Seeds in place of the study's; None is the same."""
    arms: list[str] | None = Field(default=None, min_length=1)
    """The arms to run; None is all."""
    overrides: Overrides = Field(default_factory=dict)
    """Dotted keys on top of every arm's."""


class Grid(Options):
    """Which runs a study consists of, and how they are analysed."""

    recipe: str
    """A recipe's name or path."""
    overrides: Overrides = Field(default_factory=dict)
    """Dotted keys for every run."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """One run of each arm a seed."""
    arms: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*$")], Overrides] = Field(min_length=1)
    """Names of arms and their dotted keys, on top of those for every run."""
    analysis: Annotated[Any, Choice("analysis")] = Field(default="arms", validate_default=True)
    """What is made of the finished runs."""
    short: Short = Short()
    """What --short changes."""

    @field_validator("arms", mode="before")
    @classmethod
    def _unchanged(cls, value: Any) -> Any:
        """An arm without any key is the recipe as it is."""
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, Mapping) else value

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: list[int]) -> list[int]:
        return no_seed_twice(seeds)

    def form(self, short: bool) -> Grid:
        """The grid as it is run: itself, or its short form.

        Raises:
            UserError: the short form names an arm that there is not.
        """
        if not short:
            return self.model_copy(update={"short": Short()})
        kept = self.short.arms or list(self.arms)
        for arm in kept:
            if arm not in self.arms:
                raise UserError(f"short.arms names {arm!r}; {hint(arm, tuple(self.arms))}")
        arms = {arm: laid_over(own, self.short.overrides) for arm, own in self.arms.items() if arm in kept}
        return self.model_copy(update={"seeds": self.short.seeds or self.seeds, "arms": arms, "short": Short()})


@dataclass(frozen=True)
class Form:
    """A study's name and what it asks, and whether it is the short form."""

    name: str
    question: str
    short: bool

    @property
    def form(self) -> str:
        """The name, with the form if it is the short one."""
        return f"{self.name}-short" if self.short else self.name


@dataclass(frozen=True)
class Study(Form):
    """A grid with its name and what it asks, in the full or the short form."""

    grid: Grid


def read_study(name: str, *, short: bool = False) -> Study:
    """A study of trainings by its name in `recipes/studies/`, or by a path.

    Raises:
        UserError: there is no such study, or something in it is wrong.
    """
    path, question, tree = study_file(name)
    try:
        grid = Grid.model_validate(tree)
        _check(grid)
        return Study(path.stem, question, short, grid.form(short))
    except ValidationError as error:
        raise UserError(f"{path}: {explain_in(error, Grid, tree)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def study_file(name: str) -> tuple[Path, str, dict[str, Any]]:
    """A study's file, its question and its raw tree, by its name in `recipes/studies/` or by a path.

    Raises:
        UserError: there is no such study, or it is not YAML.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else STUDIES / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no study {name!r}; {hint(name, study_names())} (or give the path of a .yaml file)")
    text = path.read_text(encoding="utf-8")
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} is not a study: it must be a mapping of keys such as recipe, seeds and arms")
    return path, first_comment(text), tree


def study_names() -> tuple[str, ...]:
    """The studies that come with the package."""
    return tuple(sorted(path.stem for path in STUDIES.glob("*.yaml")))


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Overrides:
    """`above` on top of `below`: its keys come last, so that they act on what the others made."""
    return {key: value for key, value in below.items() if key not in above} | dict(above)


def _check(grid: Grid) -> None:
    """Refuse the keys that a study sets itself."""
    blocks = [("overrides", grid.overrides), ("short.overrides", grid.short.overrides)]
    for where, block in [*blocks, *((f"arms.{arm}", own) for arm, own in grid.arms.items())]:
        for key in OWN:
            if key in block:
                raise UserError(f"{where}: a study sets {key} itself; leave it out (seeds stand in `seeds`)")


def explain_in(error: ValidationError, model: type[Options], tree: Mapping[str, Any]) -> str:
    """The first thing wrong in a study's tree, as one sentence."""
    first = error.errors()[0]
    if first["type"] == "missing":
        return f"{'.'.join(map(str, first['loc']))} is missing"
    if first["type"] == "string_pattern_mismatch":
        return f"an arm cannot be named {first['input']!r}: letters, digits, dots, dashes, + and _ make a name"
    return explain(error, model, tree)


def no_seed_twice(seeds: list[int]) -> list[int]:
    """The seeds.

    Raises:
        ValueError: one stands there twice.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands there twice")
    return seeds


def hint(word: str, known: tuple[str, ...]) -> str:
    """What to do about an unknown word."""
    close = nearest(word, known)
    return f"did you mean {close!r}?" if close else f"choose one of {', '.join(known)}"

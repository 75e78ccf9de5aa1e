"""The words of a shape whose tokenizer takes them from the text of its training: chosen once, kept in the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..records import Problem
from .data.prompts import Prompts
from .data.split import load
from .learner.model import PREFIX, read_shape
from .learner.tokenizer import frequent_words
from .runs.files import write_json

if TYPE_CHECKING:
    from .config import Config

FILE = "shape.json"
"""In a run's folder: its shape with the words in it, where the shape itself only says how many."""


def choose_words(config: Config, model: str, folder: Path) -> None:
    """Where a run of such a shape begins, take the most frequent words of its training problems into its folder.

    Held-out problems give none. Prompts count as they are worded, solutions as they stand.
    """
    if not model.startswith(PREFIX) or (folder / FILE).is_file():
        return
    shape = read_shape(model.removeprefix(PREFIX))
    tokenizer = shape["tokenizer"]
    if not isinstance(tokenizer, dict) or not isinstance(tokenizer.get("vocabulary"), int):
        return
    data = config.data
    prompts = Prompts(None, data.template, data.system)
    problems = load(data, config.seed).train
    texts = (text for problem in problems for text in (prompts.text(problem), *_solutions(problem)))
    words = frequent_words(texts, tokenizer["vocabulary"])
    write_json(folder / FILE, {**shape, "tokenizer": {"vocabulary": words}})


def with_words(model: str, folder: Path) -> str:
    """The model as the run in `folder` has it: with its words, if any were chosen."""
    chosen = folder / FILE
    return f"{PREFIX}{chosen}" if model.startswith(PREFIX) and chosen.is_file() else model


def _solutions(problem: Problem) -> Iterator[str]:
    yield from problem.info.get("solutions") or ()
    if problem.solution is not None:
        yield problem.solution

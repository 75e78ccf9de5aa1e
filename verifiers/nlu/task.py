"""A task as its file in `tasks/` declares it: how a row becomes a problem, and what its labels are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...parts import Options, UserError, nearest
from ...records import Problem
from .parsing import SCALE, Reading, read_label, read_number, read_text, words

FOLDER = Path(__file__).parent / "tasks"
TAG = "Judgement"
"""The tag around the answer (RL4GLUE)."""

Metric = Literal["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "f1a", "em"]

_SLOT = re.compile(r"\{(\w+)\}")
_HIDDEN = {"", "-", "-1"}
"""What stands in the label column of rows whose label is withheld or was never agreed on."""


class Hub(Options):
    """Where the task lies on the Hugging Face hub."""

    id: str
    """The data set."""
    config: str
    """Its configuration."""


class Label(Options):
    """One label: its name is the answer that is asked for."""

    gold: list[int | str]
    """What data sets write in the label column; the words among them are synonyms too, the numbers never."""
    synonyms: list[str] = Field(default_factory=list)
    """Other ways of saying it."""


class Task(Options):
    """One file of `tasks/`."""

    title: str
    """The name that papers use."""
    hub: Hub
    """The data set on the hub."""
    splits: dict[str, list[str]]
    """What a split is called: first on the hub, then as the stem of a file."""
    columns: dict[str, list[str]]
    """The columns that the texts below and the label come from, each under the names that copies use."""
    headless: list[str] = Field(default_factory=list)
    """Columns of .tsv files that have no header."""
    group: list[str] = Field(default_factory=list)
    """Columns that together identify the question that several rows share."""
    instruction: str
    """What to do."""
    example: str
    """How a row is put."""
    answer: Literal["label", "number", "text"] = "label"
    """What an answer is."""
    labels: dict[str, Label] = Field(default_factory=dict)
    """The labels by name, the only right answers."""
    positive: str | None = None
    """The label that F1 is about."""
    metrics: list[Metric]
    """The official metrics."""

    def model_post_init(self, context: object, /) -> None:
        """Refuse a file that could misread a label."""
        self.phrases()
        assert bool(self.labels) == (self.answer == "label"), f"{self.title}: labels and answer disagree"
        assert self.positive is None or self.positive in self.labels, f"{self.title}: {self.positive} is no label"

    def phrases(self) -> dict[tuple[str, ...], str]:
        """The label that each way of saying it stands for; ids say nothing."""
        found: dict[tuple[str, ...], str] = {}
        for name, label in self.labels.items():
            ways = [name, *label.synonyms, *(value for value in label.gold if isinstance(value, str))]
            for way in ways:
                assert found.setdefault(words(way), name) == name, f"{self.title}: {way!r} says two labels"
        return found

    def read(self, completion: str, tag: str = TAG) -> Reading:
        """The answer of a completion between `<tag>` and `</tag>`; an empty tag takes all after the reasoning."""
        if self.answer == "number":
            return read_number(completion, tag)
        if self.answer == "text":
            return read_text(completion, tag)
        return read_label(completion, tag, _phrases(self.title))

    def gold(self, answer: str) -> str | None:
        """The gold answer as `read` would give it, from a label's name or word; None where it is neither."""
        if self.answer == "text":
            return answer.strip() or None
        if self.answer == "label":
            return _phrases(self.title).get(words(answer))
        try:
            value = float(answer)
        except ValueError:
            return None
        return f"{value:g}" if SCALE[0] <= value <= SCALE[1] else None

    def problem(
        self,
        row: Mapping[str, Any],
        id: str,
        tag: str = TAG,
        opened: bool = False,
        instructed: bool = True,
        shown: Sequence[str] = (),
    ) -> Problem | None:
        """The row of a data set as a problem, or None where its label is withheld.

        Args:
            row: one row as `rows.flat` gives it.
            id: the problem's id.
            tag: what the answer is to stand between; empty asks for the bare answer.
            opened: let the prompt end with the opening tag.
            instructed: say what to do and how to answer.
            shown: examples with their answers, as `show` gives them.

        Raises:
            UserError: a column is missing, or the label column holds something unknown.
        """
        answers = self._labels(row, id)
        if not answers:
            return None
        texts = (self.instruction, self._rule(tag), self.example)
        instruction, rule, example = self._filled(texts, row, id)
        before, after = _tagged(tag)
        opened = opened and bool(tag)
        head, tail = [f"{instruction} {rule}"] * instructed, [example] + [before] * opened
        info: dict[str, Any] = {"task": self.name, "tag": tag}
        if self.group:
            info["question"] = "/".join(str(self._required(row, [column], column, id)) for column in self.group)
        if self.answer == "text":
            info["answers"] = answers
        if shown:
            info["asked"] = "\n\n".join([*head, *tail])
        return Problem(
            id=id,
            prompt="\n\n".join([*head, *shown, *tail]),
            answer=answers[0],
            solution=("" if opened else before) + answers[0] + after,
            info=info,
        )

    def show(self, row: Mapping[str, Any], id: str, tag: str = TAG) -> str | None:
        """The row with its answer, in brackets (as RL4GLUE puts it), or None where its label is withheld.

        Raises:
            UserError: as of `problem`.
        """
        answers = self._labels(row, id)
        if not answers:
            return None
        before, after = _tagged(tag)
        (example,) = self._filled((self.example,), row, id)
        return f"[{example}\n\n{before}{answers[0]}{after}]"

    @property
    def name(self) -> str:
        """The stem of the task's file, such as sst2."""
        return plain_name(self.title)

    def _labels(self, row: Mapping[str, Any], id: str) -> list[str]:
        label = _cell(row, self.columns["label"])
        return self._answers([] if label is None else label if isinstance(label, list | tuple) else [label], id)

    def _filled(self, texts: Sequence[str], row: Mapping[str, Any], id: str) -> list[str]:
        """The texts with the row's fields in their slots."""
        fields = {name: self._field(row, name, id) for name in self.columns if name != "label"}
        return [_SLOT.sub(lambda slot: fields[slot.group(1)], text) for text in texts]

    def _answers(self, values: list[Any] | tuple[Any, ...], id: str) -> list[str]:
        """The answers that the label column stands for; several only where an answer is a text."""
        if self.answer == "text":
            return [str(value) for value in values if str(value).strip()]
        written = [_written(value) for value in values]
        return [self._answer(value, id) for value in written if value not in _HIDDEN]

    def _answer(self, written: str, id: str) -> str:
        if self.answer == "number":
            answer = self.gold(written)
        else:
            answer = next((n for n, v in self.labels.items() if written in {_written(g) for g in v.gold}), None)
        if answer is None:
            known = ", ".join(str(g) for v in self.labels.values() for g in v.gold) or f"{SCALE[0]:g} to {SCALE[1]:g}"
            raise UserError(f"{id}: {written!r} is no label of {self.title} (they are {known}); correct or remove it")
        return answer

    def _rule(self, tag: str) -> str:
        before, after = _tagged(tag)
        if self.answer == "label":
            *first, last = [f"{before}{name}{after}" for name in self.labels]
            return f"Answer {', '.join(first)} or {last}."
        what = "with a number" if self.answer == "number" else "with one of the entities"
        return f"Answer {what}" + (f" between {before} and {after}." if tag else " alone.")

    def _field(self, row: Mapping[str, Any], name: str, id: str) -> str:
        value = self._required(row, self.columns[name], name, id)
        return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    def _required(self, row: Mapping[str, Any], names: list[str], what: str, id: str) -> Any:
        value = _cell(row, names)
        if value is None:
            raise UserError(
                f"{id}: the row lacks {what!r} of {self.title} (columns called {', '.join(names)}); "
                f"its columns are {', '.join(row)}"
            )
        return value


def _tagged(tag: str) -> tuple[str, str]:
    """What stands before and after an answer."""
    return (f"<{tag}>", f"</{tag}>") if tag else ("", "")


def task_names() -> tuple[str, ...]:
    """All tasks, sorted."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))


def plain_name(name: str) -> str:
    """`SST-2` as sst2."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def task_of(name: str) -> Task:
    """The task of that name, as papers or files write it.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    if plain_name(name) in task_names():
        return _load(plain_name(name))
    close = nearest(plain_name(name), task_names())
    hint = f"did you mean {close!r}?" if close else f"choose one of {', '.join(task_names())}"
    raise UserError(f"there is no task named {name!r}; {hint}")


@cache
def _load(name: str) -> Task:
    from ruamel.yaml import YAML

    return Task.model_validate(YAML(typ="safe", pure=True).load(FOLDER / f"{name}.yaml"))


@cache
def _phrases(title: str) -> dict[tuple[str, ...], str]:
    return task_of(title).phrases()


def _cell(row: Mapping[str, Any], names: list[str]) -> Any:
    """The first of the columns that the row has; `a.b` is the field b of the column a."""
    for name in names:
        value: Any = row
        for field in [name] if name in row else name.split("."):
            value = value.get(field) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _written(value: Any) -> str:
    """A cell of the label column as text: 1.0 as 1, True as true, not_entailment as it stands."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()

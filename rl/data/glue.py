"""Problems from GLUE and SuperGLUE, off the hub or from a local folder as the benchmarks are handed out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from ...parts import AbsentError, UserError
from ...records import Problem
from ...verifiers.nlu.rows import flat
from ...verifiers.nlu.task import TAG, Task, plain_name, task_of
from .base import Data
from .file import READERS, read
from .hub import Hub

log = logging.getLogger(__name__)

Row = Mapping[str, Any]
SUFFIXES = (".tsv", *READERS)
"""Endings of local files, in the order in which they are looked for."""


class Glue(Data):
    """One task or several, worded by their files in `verifiers/nlu/tasks/`; each split stays as its source has it.

    Rows whose label is withheld are left out and counted. Problems say which task they are of and which tag the
    answer belongs in, so that the verifier `nlu` needs no options.
    """

    task: str | list[str] = Field(min_length=1)
    """The task or tasks, such as cola or [cola, rte]."""
    path: str | None = None
    """Local folder with one folder a task (CoLA/train.tsv, RTE/val.jsonl), up to two levels down; unset: the hub."""
    id: str | None = None
    """Data set on the hub in place of the tasks' own, with configurations of the same names."""
    split: str = "train"
    """Split to train on: train, or the stem of a local file, or a split of the hub."""
    eval_split: str | None = "validation"
    """Split for evaluation only (MNLI has validation_mismatched too); null holds some of `split` out."""
    limit: int | None = Field(default=None, ge=1)
    """Problems of each task to train on, from the first on; unset takes all. Evaluation sets are taken whole."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    tag: str = TAG
    """Tag that the answer is asked to stand between; empty asks for the bare answer."""
    opened: bool = False
    """End the prompt with the opening tag, as the paper does; for models without a chat template."""
    instructed: bool = True
    """Say what to do and how to answer; false for a model that is made for the task."""
    shots: int = Field(default=0, ge=0)
    """Rows of `split`, the first of each task, that each prompt shows with their answers; they are not trained on."""

    @field_validator("task")
    @classmethod
    def _known(cls, task: str | list[str]) -> str | list[str]:
        try:
            names = [task_of(name).name for name in ([task] if isinstance(task, str) else task)]
        except UserError as error:
            raise ValueError(str(error)) from None
        if len(set(names)) < len(names):
            raise ValueError("it names a task twice; name each once")
        return names

    def load(self, seed: int) -> list[Problem]:
        """The problems of `split`, task after task, in their order."""
        return [problem for name in self.task for problem in self._problems(task_of(name), self.split, self.limit)]

    def load_evaluation(self, seed: int) -> list[Problem] | None:
        """The problems of `eval_split`."""
        if self.eval_split is None:
            return None
        return [problem for name in self.task for problem in self._problems(task_of(name), self.eval_split, None)]

    def _problems(self, task: Task, split: str, limit: int | None) -> list[Problem]:
        label = f"{task.name}/{split}"
        rows, (shown, after) = self._flat(task, split), self._shown(task)
        problems: list[Problem] = []
        withheld = 0
        for number, row in enumerate(rows):
            if len(problems) == limit:
                break
            if split == self.split and number < after:
                continue
            problem = task.problem(row, f"{label}/{number}", self.tag, self.opened, self.instructed, shown)
            if problem is None:
                withheld += 1
            else:
                problems.append(problem)
        if not problems:
            raise UserError(f"{label}: none of {len(rows)} rows has a label; choose another split")
        if withheld:
            log.warning("%s: %d rows left out: their label is withheld", label, withheld)
        return problems

    def _shown(self, task: Task) -> tuple[list[str], int]:
        """The examples that prompts show, and the number of the row after them."""
        if not self.shots:
            return [], 0
        shown: list[str] = []
        for number, row in enumerate(self._flat(task, self.split)):
            text = task.show(row, f"{task.name}/{self.split}/{number}", self.tag)
            shown += [text] if text is not None else []
            if len(shown) == self.shots:
                return shown, number + 1
        raise UserError(f"{task.name}/{self.split} has {len(shown)} labelled rows; data.shots={self.shots} is more")

    def _flat(self, task: Task, split: str) -> list[Row]:
        return [flat_row for row in self._rows(task, split) for flat_row in flat(row)]

    def _rows(self, task: Task, split: str) -> list[Row]:
        names = task.splits.get(split, [split])
        if self.path is None:
            hub = Hub(id=self.id or task.hub.id, config=task.hub.config, revision=self.revision)
            return hub.rows(names[0], None)
        file = find_file(Path(self.path).expanduser(), task, names, alone=len(self.task) == 1)
        return read_tsv(file, task) if file.suffix == ".tsv" else read(str(file))


def find_file(root: Path, task: Task, stems: list[str], alone: bool = True) -> Path:
    """The file of a split: in a folder called like the task, at most two levels down, or, if `alone`, in `root` itself.

    Raises:
        UserError: there is none; the message says what was looked for.
    """
    folders = [path for path in (root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))) if path.is_dir()]
    own = [folder for folder in folders if plain_name(folder.name) == task.name]
    for folder in own + ([root] if alone else []):
        for name in (f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES):
            if (folder / name).is_file():
                return folder / name
    raise AbsentError(
        f"there is no file of {task.title} called {' or '.join(stems)} ({', '.join(SUFFIXES)}) in {root}; "
        f"it must lie in a folder {task.title} there, as data.path"
    )


def read_tsv(file: Path, task: Task) -> list[Row]:
    """The rows of a .tsv file, with or without a header; quotes are text, as GLUE writes them.

    Lines that have not one cell for each column are left out, their number logged.

    Raises:
        UserError: the file is no UTF-8, or its columns cannot be known.
    """
    try:
        lines = [line.split("\t") for line in file.read_text("utf-8-sig").replace("\r\n", "\n").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}); check it or fetch it again") from error
    if not lines:
        raise UserError(f"{file} is empty; fetch it again")
    columns, rows = task.headless, iter(lines)
    if _is_header(lines[0], task):
        columns = next(rows)
    elif not columns:
        wanted = ", ".join(names[-1] for names in task.columns.values())
        raise UserError(f"{file} begins with no header of {task.title}; its first line must name {wanted}")
    found = list(_complete(rows, columns))
    if left_out := len(lines) - len(found) - (columns is lines[0]):
        log.warning("%s: %d of %d lines left out: not %d columns", file, left_out, len(lines), len(columns))
    return found


def _is_header(cells: list[str], task: Task) -> bool:
    needed = [names for name, names in task.columns.items() if name != "label"]
    return all(any(name in cells for name in names) for names in needed)


def _complete(rows: Iterator[list[str]], columns: list[str]) -> Iterator[Row]:
    for cells in rows:
        if len(cells) == len(columns):
            yield dict(zip(columns, cells, strict=True))

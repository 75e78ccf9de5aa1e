"""Theorems to prove in Lean 4, from a JSON lines file such as miniF2F's or Lean-Workbook's."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...parts import UserError
from ...records import Problem
from ...verifiers.lean.source import TaskError, task_of
from .base import Data
from .file import read

PUBLISHED = {
    "f3da1cf58ef1bea87329f5ba3629728ee62656744946d1238fd1342f366e0db4": "4.24.0",
    "d6654c88476ff14db19d57dea25bd955a240525fb52171e460f89d98f83d7dd5": "4.9.0",
}
"""Lean versions of the published miniF2F files, by SHA-256: 122 of 488 statements differ between the two, and the
older one's syntax for sums is an error today, so statements and toolchain must not be mixed."""


class LeanStatements(Data):
    """Rows with `name` and `formal_statement` (or `statement`), and `header`, `preamble`, `informal_prefix` and `split`
    where they have them. The verifier `lean` needs no more than what they hold."""

    path: str | list[str]
    """The .jsonl file, or several, relative to the working directory."""
    split: str | list[str] | None = None
    """Rows to train on, by their `split`, or where they have none by the file's name without its ending; unset: none
    where there is an `eval_split` of these files, else all."""
    eval_path: str | list[str] | None = None
    """Files for evaluation only; unset takes the `eval_split` of `path`."""
    eval_split: str | list[str] | None = None
    """Rows for evaluation only, as `split`, such as test; unset: all of `eval_path`, else some are held out."""
    limit: int | None = Field(default=None, ge=1)
    """Problems to train on, from the first on; unset takes all."""
    lean: str | None = None
    """Lean version that the statements are for, such as 4.24.0; unset: known for the published miniF2F files."""
    ask: Literal["continue", "block"] = "continue"
    """For a prover that continues a file (DeepSeek-Prover's wording), or a chat model that answers in a Lean block."""

    def load(self, seed: int) -> list[Problem]:
        """The problems of `split` in the file's order."""
        if self.split is None and self.eval_split is not None and self.eval_path is None:
            return []
        return self._problems(self.path, self.split)[: self.limit]

    def load_evaluation(self, seed: int) -> list[Problem] | None:
        """The problems of `eval_path`, or of `eval_split`."""
        if self.eval_path is None and self.eval_split is None:
            return None
        return self._problems(self.eval_path or self.path, self.eval_split)

    def _problems(self, path: str | list[str], split: str | list[str] | None) -> list[Problem]:
        paths, wanted = _listed(path), None if split is None else _listed(split)
        problems, splits = [], set()
        for one in paths:
            rows = [(n, row, str(row.get("split") or Path(one).stem)) for n, row in enumerate(read(one), 1)]
            digest = hashlib.sha256(Path(one).expanduser().read_bytes()).hexdigest()
            version = self.lean or PUBLISHED.get(digest, "")
            splits |= {own for *_, own in rows}
            chosen = [row for row in rows if wanted is None or row[2] in wanted]
            problems += [self._problem(row, f"{one}, row {n}", version, own) for n, row, own in chosen]
        files = " and ".join(paths)
        for missing in sorted(set(wanted or ()) - splits):
            raise UserError(f"{files} has no row of split {missing!r}; its splits are {', '.join(sorted(splits))}")
        names = Counter(problem.id for problem in problems)
        if twice := [name for name, number in names.items() if number > 1]:
            raise UserError(f"{files} holds the theorem {twice[0]} twice; give each its own name, or name a data.split")
        return problems

    def _problem(self, row: Mapping[str, Any], where: str, version: str, split: str) -> Problem:
        try:
            task = task_of(row)
        except TaskError as error:
            raise UserError(f"{where}: {error}; correct or remove it") from error
        informal = str(row.get("informal_prefix") or "")
        parts = (task.header, task.preamble, informal + task.statement)
        stated = "\n\n".join(part.strip() for part in parts if part.strip())
        info = {**row, "source": split, "lean": version}
        if self.ask == "continue":
            # The wording of DeepSeek-Prover-V1.5 (non-CoT): the policy goes on inside the open block.
            opening = f"```lean4\n{stated} := by\n"
            prompt = f"Complete the following Lean 4 code:\n\n{opening}"
            info["opening"] = opening
        else:
            prompt = (
                "Prove this theorem in Lean 4. Answer with one ```lean4 block that holds the whole file, the statement "
                f"unchanged.\n\n```lean4\n{stated} := by\n  sorry\n```"
            )
        proof = row.get("reference_proof")
        solution = None
        if isinstance(proof, str):
            solution = f"```lean4\n{proof}\n```" if self.ask == "block" else _body(proof)
        return Problem(str(row.get("name") or task.name), prompt, task.statement, solution, info)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _body(proof: str) -> str | None:
    """What follows `:= by` and closes the block; None for a proof that is a term."""
    head, by, rest = proof.partition("by")
    return None if head.strip() or not by else f"  {rest.strip()}\n```"

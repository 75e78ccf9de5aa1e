"""Theorems to prove in Lean 4, from a JSON lines file such as miniF2F's or Lean-Workbook's."""

from __future__ import annotations

import hashlib
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

    path: str
    """The .jsonl file, relative to the working directory."""
    split: str | None = None
    """Rows to train on, by their `split`; unset: none where there is an `eval_split`, else all."""
    eval_split: str | None = None
    """Rows for evaluation only, by their `split`, such as test; unset holds some of the others out."""
    limit: int | None = Field(default=None, ge=1)
    """Problems to train on, from the first on; unset takes all."""
    lean: str | None = None
    """Lean version that the statements are for, such as 4.24.0; unset: known for the published miniF2F files."""
    ask: Literal["continue", "block"] = "continue"
    """For a prover that continues a file (DeepSeek-Prover's wording), or a chat model that answers in a Lean block."""

    def load(self, seed: int) -> list[Problem]:
        """The problems of `split` in the file's order."""
        if self.split is None and self.eval_split is not None:
            return []
        return self._problems(self.split)[: self.limit]

    def load_evaluation(self, seed: int) -> list[Problem] | None:
        """The problems of `eval_split`."""
        return None if self.eval_split is None else self._problems(self.eval_split)

    def _problems(self, split: str | None) -> list[Problem]:
        rows = read(self.path)
        version = self.lean or PUBLISHED.get(hashlib.sha256(Path(self.path).expanduser().read_bytes()).hexdigest(), "")
        splits = sorted({str(row.get("split")) for row in rows})
        chosen = [(n, row) for n, row in enumerate(rows, 1) if split is None or row.get("split") == split]
        if not chosen:
            raise UserError(f"{self.path} has no row of split {split!r}; its splits are {', '.join(splits)}")
        problems = [self._problem(row, f"{self.path}, row {number}", version) for number, row in chosen]
        names = [problem.id for problem in problems]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(
                f"{self.path} holds the theorem {twice} twice; give each its own name, or name a data.split"
            )
        return problems

    def _problem(self, row: Mapping[str, Any], where: str, version: str) -> Problem:
        try:
            task = task_of(row)
        except TaskError as error:
            raise UserError(f"{where}: {error}; correct or remove it") from error
        informal = str(row.get("informal_prefix") or "")
        parts = (task.header, task.preamble, informal + task.statement)
        stated = "\n\n".join(part.strip() for part in parts if part.strip())
        info = {**row, "source": str(row.get("split") or ""), "lean": version}
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


def _body(proof: str) -> str | None:
    """What follows `:= by` and closes the block; None for a proof that is a term."""
    head, by, rest = proof.partition("by")
    return None if head.strip() or not by else f"  {rest.strip()}\n```"

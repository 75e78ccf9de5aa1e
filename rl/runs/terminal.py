"""What a person sees while a run goes on: rich on a terminal, plain lines elsewhere, all of it in logs/run.log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

SHOWN = {
    "reward": "reward {:.3f}",
    "verify/right": "right {:.2f}",
    "completions/mean_length": "length {:.1f}",
    "entropy": "entropy {:.3f}",
    "kl": "kl {:.4f}",
    "loss": "loss {:.4f}",
    "grad_norm": "grad {:.3f}",
    "eval/held_out/pass@1": "pass@1 {:.3f}",
    "time/step": "{:.1f} s",
}
"""Metrics of the line that each step prints, where a step has them."""


class Terminal:
    """Says what happens. Warnings are said once each, and counted."""

    def __init__(self, log: Path) -> None:
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.file = log.open("a", encoding="utf-8")
        self.warned: dict[str, int] = {}
        self.last = 0.0
        self.status: Status | None = None
        if self.console.is_terminal:
            self.status = self.console.status("")
            self.status.start()

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False)
        self._log(text)

    def show(self, renderable: Any) -> None:
        """A table."""
        self.console.print(renderable)

    def warn(self, text: str) -> None:
        """One line, the first time that it is said."""
        self.warned[text] = self.warned.get(text, 0) + 1
        if self.warned[text] == 1:
            self.console.print(f"warning: {text}", markup=False, style="yellow")
            self._log(f"warning: {text}")

    def stage(self, text: str) -> None:
        """What is being done just now, on a terminal's last line."""
        if self.status is not None:
            self.status.update(text)

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """One line a step."""
        shown = [form.format(metrics[name]) for name, form in SHOWN.items() if name in metrics]
        line = f"step {step:>{len(str(steps))}}/{steps}  " + "  ".join(shown)
        now = time.monotonic()
        # A line a second is enough for the eye; the file and metrics.jsonl hold every step.
        if now - self.last > 1.0 or step == steps:
            self.console.print(line, markup=False)
            self.last = now
        self._log(line)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.status is not None:
            self.status.stop()
        self.file.close()

    def _log(self, text: str) -> None:
        self.file.write(text + "\n")
        self.file.flush()

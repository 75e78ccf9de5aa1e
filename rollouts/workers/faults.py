"""What can be wrong with a worker: it is then replaced, and its cause is logged and counted."""

from __future__ import annotations

from typing import Literal

from ...parts import RunError, UserError

Kind = Literal["worker_died", "worker_hung", "worker_out_of_memory", "worker_rubbish", "worker_failed"]
"""Its process ended, gave no answer in time, ran out of memory, answered nonsense, or its engine raised an error."""


MOST_SAID = 200
"""Characters of what Ray says."""


class FaultError(Exception):
    """A worker that cannot be relied on: of which `kind`, and the cause in words."""

    def __init__(self, kind: Kind, cause: str):
        super().__init__(cause)
        self.kind: Kind = kind


def fault_of(error: Exception) -> FaultError:
    """What an error that Ray raised in place of an answer says of the worker.

    Raises:
        UserError, RunError: the engine's own, which no other worker would spare us.
    """
    from ray import exceptions

    if isinstance(error, exceptions.RayTaskError):
        cause = error.cause
        if isinstance(cause, UserError | RunError):
            raise type(cause)(str(cause)) from None
        text = f"{type(cause).__name__}: {_first_line(cause)}"
        ran_out = isinstance(cause, MemoryError) or "OutOfMemory" in type(cause).__name__
        return FaultError("worker_out_of_memory" if ran_out else "worker_failed", text)
    if isinstance(error, exceptions.OutOfMemoryError):
        return FaultError("worker_out_of_memory", "Ray ended it because its node ran out of memory")
    return FaultError("worker_died", _death(error))


def _death(error: Exception) -> str:
    """Ray's word on a death, without its general advice."""
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail:")[2] or text or type(error).__name__
    return f"its process ended ({detail.partition('Some common causes')[0].strip()[:MOST_SAID]})"


def _first_line(error: object) -> str:
    return (str(error).strip() or "no message").partition("\n")[0]

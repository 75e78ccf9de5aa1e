"""What each worker process gets, and when it is given up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ...parts import Options


class Resources(Options):
    """Of one worker process; Ray places it where these are free."""

    cpus: float = Field(default=0.5, gt=0)
    """CPU cores that Ray reserves for it; a fraction lets several share a core."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs that Ray reserves for it; a fraction lets several share one. None is 1 where the cluster has any, else 0."""
    threads: int = Field(default=1, ge=1)
    """Threads that it computes with on a CPU."""
    placement: Literal["pack", "spread"] = "pack"
    """Whether workers fill a node before the next, or go to different nodes."""
    start: float = Field(default=300.0, gt=0)
    """Seconds that the cluster may take to find room for it, and again as many for its engine to open."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds for one step's share of requests; a worker that takes longer hangs, and is replaced."""
    replacements: int = Field(default=3, ge=0)
    """Times in a row that one share of requests may lose its worker before the run stops."""

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"{gpus} GPUs cannot be reserved; give a whole number, or a fraction below 1")
        return gpus

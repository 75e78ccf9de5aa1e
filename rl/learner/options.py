"""The `learner:` block of the tree."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from ...parts import Options
from ..choices import Choice


class Schedule(Options):
    """The learning rate over the run, as a share of `lr`; the bare word `cosine` is short for `{name: cosine}`."""

    name: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up: constant, or a linear or cosine fall to the floor."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Linear rise at the start, as a share of the horizon."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Rate at the horizon and after it, as a share of the peak."""
    horizon: int | None = Field(default=None, ge=1)
    """Steps over which the rate rises and falls; None is the run's steps."""

    @model_validator(mode="before")
    @classmethod
    def _bare_word(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def share(self, step: int, steps: int) -> float:
        """The share of the peak rate at `step` (from 1) of a run of `steps`.

        With h the horizon and w = ceil(warmup h): step/w up to step w; then with t = (step - 1 - w)/(h - w), held
        within [0, 1], the rest is floor + (1 - floor)(1 - t) for linear and floor + (1 - floor)(1 + cos(pi t))/2 for
        cosine.
        """
        horizon = self.horizon or max(steps, 1)
        rise = math.ceil(self.warmup * horizon)
        if step <= rise:
            return step / rise
        if self.name == "constant":
            return 1.0
        done = min((step - 1 - rise) / max(horizon - rise, 1), 1.0)
        rest = 1 - done if self.name == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.floor + (1 - self.floor) * rest


def _or_bare_word(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"enum": list(get_args(Schedule.model_fields["name"].annotation))}, {"$ref": schema.pop("$ref")}]


class LearnerOptions(Options):
    """How the policy is parameterised and updated."""

    lr: float = Field(default=1e-6, gt=0)
    """Peak learning rate."""
    schedule: Schedule = Field(default=Schedule(), json_schema_extra=_or_bare_word)
    """The rate over the run."""
    adapter: Annotated[Any, Choice("adapter")] = Field(default="lora", validate_default=True)
    """Which parameters are trained."""
    initialisation: Annotated[Any, Choice("initialisation")] = Field(default="default", validate_default=True)
    """Where the trained parameters start."""
    mask: Annotated[Any, Choice("mask")] = Field(default="none", validate_default=True)
    """Which weights are trained, where learner.adapter=full: all, or those that another run changed, and controls."""
    critic: Annotated[Any, Choice("critic")] = Field(default="shared", validate_default=True)
    """What gives values, where the algorithm needs them (ppo)."""
    optimizer: Annotated[Any, Choice("optimizer")] = Field(default="adamw", validate_default=True)
    """How gradients become steps."""
    perturbation: Annotated[Any, Choice("perturbation")] = Field(default="none", validate_default=True)
    """What moves the weights while gradients are taken."""
    regulariser: Annotated[Any, Choice("regulariser")] = Field(default="none", validate_default=True)
    """What is added to the loss."""
    masters: bool = True
    """Keep float32 masters of narrower weights; without them each step is rounded to the weights' dtype."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients are scaled down to this Euclidean norm; None leaves them."""
    skip_grad_norm: float | None = Field(default=None, gt=0)
    """A step whose norm is above this is left out and counted; one that is not finite always is."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens a micro-batch at most (a longer row stands alone); None is 2048 on a CPU and 16384 elsewhere."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input and compute the rest again: less memory, a third more time."""
    ranks: int = Field(default=1, ge=1)
    """Processes that share each update, in Ray actors, on a device each; above 1 parameters are sharded (FSDP2)."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the base's weights and the arithmetic; auto is bfloat16 on CUDA, else float32."""

    @model_validator(mode="after")
    def _shardable(self) -> LearnerOptions:
        if self.ranks > 1 and not type(self.optimizer).shards:
            raise ValueError(
                f"ranks={self.ranks} shards the optimizer's state, which {type(self.optimizer).__name__} does not "
                "allow; set learner.ranks=1 or learner.optimizer=adamw"
            )
        return self

"""Room for workers: one placement group, a bundle a worker."""

from __future__ import annotations

from typing import Any

from ...parts import RunError, UserError
from .cluster import is_ours
from .options import Resources


def demand(resources: Resources) -> dict[str, float]:
    """What Ray reserves for one worker."""
    import ray

    gpus = resources.gpus
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) > 0 else 0.0
    return {"CPU": resources.cpus} | ({"GPU": gpus} if gpus else {})


def reserve(workers: int, one: dict[str, float], resources: Resources) -> Any:
    """The placement group of `workers` bundles of `one`.

    Raises:
        UserError: this machine will never have room for them.
        RunError: the cluster has found none within `resources.start` seconds.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    have = ray.cluster_resources()
    short = [
        f"{n * workers:g} {kind}s of {have.get(kind, 0):g}"
        for kind, n in one.items()
        if n * workers > have.get(kind, 0)
    ]
    if short and is_ours():
        raise UserError(
            f"{workers} workers need {' and '.join(short)} on this machine; lower rollouts.workers or "
            "rollouts.resources, or join a larger cluster by RAY_ADDRESS"
        )
    group = placement_group([one] * workers, strategy=resources.placement.upper())
    if not group.wait(resources.start):
        remove_placement_group(group)
        asked = ", ".join(f"{n:g} {kind}s" for kind, n in one.items())
        raise RunError(
            f"the Ray cluster found no room for {workers} workers of {asked} each within {resources.start:g} s "
            f"({_free(one)}); lower rollouts.workers or rollouts.resources, or raise rollouts.resources.start"
        )
    return group


def _free(one: dict[str, float]) -> str:
    import ray

    free, have = ray.available_resources(), ray.cluster_resources()
    return ", ".join(f"free are {free.get(kind, 0):g} of {have.get(kind, 0):g} {kind}s" for kind in one)

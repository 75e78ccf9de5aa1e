"""The base model: from the hub, from a folder, or `shape:NAME`, an architecture with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...parts import AbsentError, UserError, nearest
from ..runs.files import replacing
from .tokenizer import build_tokenizer

SHAPES = Path(__file__).resolve().parents[2] / "recipes" / "shapes"
PREFIX = "shape:"
"""Of a model's name, when it is an architecture with random weights."""


@dataclass(frozen=True)
class Base:
    """A causal language model of transformers, and its tokenizer (which has an end and a padding token)."""

    model: Any
    tokenizer: Any


def pick_device() -> str:
    """The best device there is: cuda, then mps, then cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(name: str, device: str) -> torch.dtype:
    """`auto` is bfloat16 on CUDA and float32 elsewhere."""
    if name == "auto":
        name = "bfloat16" if device == "cuda" else "float32"
    return getattr(torch, name)


def load_base(name: str, *, seed: int, dtype: torch.dtype, device: str, extra: dict[str, Any] | None = None) -> Base:
    """The model `name` in `dtype` on `device`, in evaluation mode, nothing trainable yet.

    Raises:
        UserError: there is no such shape, folder or model on the hub, or it is no causal language model.
    """
    shape = name.removeprefix(PREFIX)
    base = _from_shape(shape, seed) if name.startswith(PREFIX) else _from_pretrained(name, dtype, extra or {})
    if not extra:
        base.model.to(device=device, dtype=dtype)
        base.model.config.dtype = dtype  # engines read it there, and a model made from a shape has none
    if base.model.config.model_type == "gemma2":
        # transformers' default attention leaves out Gemma 2's soft cap, with which it was trained.
        base.model.set_attn_implementation("eager")
    base.model.eval().requires_grad_(False)
    return base


def save_shape(name: str, folder: Path, *, seed: int, dtype: str) -> Path:
    """The model `shape:NAME` as a Hugging Face folder, written unless it is there; returns `folder`."""
    if not (folder / "config.json").is_file():
        base = load_base(name, seed=seed, dtype=getattr(torch, dtype), device="cpu")
        with replacing(folder) as temporary, without_bars():
            base.model.save_pretrained(temporary)
            base.tokenizer.save_pretrained(temporary)
    return folder


def load_tokenizer(name: str) -> Any:
    """The tokenizer of the model `name` alone.

    Raises:
        UserError: as `load_base`.
    """
    if name.startswith(PREFIX):
        return build_tokenizer(read_shape(name.removeprefix(PREFIX))["tokenizer"])
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    _check_folder(name)
    # AutoTokenizer would put the architecture's own tokenizer, of byte pairs, in the place of one of words.
    kind = PreTrainedTokenizerFast if _is_of_words(Path(name)) else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise AbsentError(_not_found(name, error)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def skeleton(name: str) -> nn.Module:
    """The model `name` without weights, on torch's meta device: what can be known of its architecture.

    Raises:
        UserError: as `load_base`.
    """
    if name.startswith(PREFIX):
        spec = read_shape(name.removeprefix(PREFIX))
        architecture, config = _architecture(spec, build_tokenizer(spec["tokenizer"]))
        with torch.device("meta"):
            return architecture(config)
    from transformers import AutoConfig, AutoModelForCausalLM

    _check_folder(name)
    try:
        config = AutoConfig.from_pretrained(name)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise AbsentError(_not_found(name, error)) from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars that transformers draws for each file it reads or writes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def shape_names() -> tuple[str, ...]:
    """The shapes that come with the package."""
    return tuple(sorted(path.stem for path in SHAPES.glob("*.json")))


def shape_for(model: str) -> str | None:
    """The name of the shape with the dimensions of `model`, by the ids for which its file says that it stands."""
    for name in shape_names():
        if model in read_shape(name).get("stands_for", ()):
            return name
    return None


def _from_pretrained(name: str, dtype: torch.dtype, extra: dict[str, Any]) -> Base:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(name)
    # A download keeps its bar: it may take long.
    try:
        with without_bars() if Path(name).is_dir() else nullcontext():
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **extra)
    except (OSError, ValueError) as error:
        raise AbsentError(_not_found(name, error)) from error
    return Base(model, tokenizer)


def _from_shape(name: str, seed: int) -> Base:
    """Random weights that depend on the shape and the seed only."""
    spec = read_shape(name)
    tokenizer = build_tokenizer(spec["tokenizer"])
    architecture, config = _architecture(spec, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = architecture(config)
    return Base(model, tokenizer)


def _architecture(spec: dict[str, Any], tokenizer: Any) -> tuple[Any, Any]:
    """The class of a shape's model, and the configuration from which it is made."""
    import transformers

    architecture = getattr(transformers, spec["architecture"])
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    return architecture, architecture.config_class(**{"vocab_size": len(tokenizer), **spec["config"], **ends})


def read_shape(name: str) -> dict[str, Any]:
    """What a shape's file holds, by its name in `recipes/shapes/` or the path of a .json file.

    Raises:
        UserError: there is none.
    """
    file = Path(name) if name.endswith(".json") else SHAPES / f"{name}.json"
    if not file.is_file():
        close = nearest(name, shape_names())
        hint = f"did you mean shape:{close}?" if close else f"choose one of {', '.join(shape_names())}"
        raise UserError(f"model: there is no shape {name!r}; {hint}")
    return json.loads(file.read_text())


def _is_of_words(folder: Path) -> bool:
    file = folder / "tokenizer.json"
    return file.is_file() and json.loads(file.read_text("utf-8"))["model"].get("type") == "WordLevel"


def _check_folder(name: str) -> None:
    path = Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"model: the folder {name} holds no config.json; give a Hugging Face model folder")
    elif looks_local:
        raise AbsentError(f"model: there is no folder {name}; give a model folder or a Hugging Face id")


def _not_found(name: str, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0]
    return f"model: {name!r} could not be loaded ({reason}); give a Hugging Face id or an existing model folder"

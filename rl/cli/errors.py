"""What a command says when it fails: one sentence and an exit code, never a traceback for what a user can mend."""

from __future__ import annotations

import errno
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

FULL = "No space left on device"
"""What the system says; safetensors passes it on as a text, in an error of its own without a number."""

TRAIN = "torch transformers peft datasets numba pandas safetensors tokenizers huggingface_hub jinja2 psutil ray scipy"
EXTRAS = {"train": set(TRAIN.split()), "vllm": {"vllm"}, "lean": {"lean_dojo"}}
"""Which extra brings which module."""


def told(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, its errors told on stderr as one sentence: exit code 2 for bad input, 1 for a failed run."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with terminable():
                command(*args, **kwargs)
        except (KeyboardInterrupt, Exception) as error:
            said = explain(error)
            if said is None:
                raise
            sentence, code = said
            print(f"underdog: {sentence}", file=sys.stderr)
            raise typer.Exit(code) from None

    return run


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems and containers send before they kill: it ends a command as Ctrl-C does."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` in this block, once: a second one must not disturb the closing that it asked for."""
    if threading.current_thread() is not threading.main_thread():  # no other may handle signals
        yield
        return

    def handle(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def explain(error: BaseException) -> tuple[str, int] | None:
    """The sentence and the exit code of an error; None for one that only its traceback explains.

    Notes on an interruption or a full disk, such as how to resume, end the sentence.
    """
    from ...parts import RunError, UserError

    if isinstance(error, UserError):
        return _line(str(error)), 2
    if isinstance(error, RunError):
        return _line(str(error)), 1
    if isinstance(error, Terminated):
        return _noted("terminated", error), 143
    if isinstance(error, KeyboardInterrupt):
        return _noted("interrupted", error), 130
    if isinstance(error, ModuleNotFoundError):
        root = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in EXTRAS.items() if root in modules), None)
        return (f"this command needs {root}: pip install 'underdog-rl[{extra}]'", 2) if extra else None
    if _is_full(error):
        where = f" (writing {error.filename})" if isinstance(error, OSError) and error.filename else ""
        return _noted(f"the disk is full{where}; free some space and try again", error), 1
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
        return f"{error.filename or 'a file'}: {error.strerror}; choose a place that you may write to", 2
    return None


def _is_full(error: BaseException) -> bool:
    return FULL in str(error) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))


def _noted(sentence: str, error: BaseException) -> str:
    return "; ".join([sentence, *getattr(error, "__notes__", [])])


def _line(text: str) -> str:
    return " ".join(text.split())

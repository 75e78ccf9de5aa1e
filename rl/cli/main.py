"""The command line: one file a command; heavy imports come after parsing, so that --help is quick."""

from __future__ import annotations

import errno
import sys

import typer

from ...parts import RunError, UserError
from . import doctor, evaluate, export, recipes, report, train

app = typer.Typer(
    name="underdog",
    help="RL post-training for tiny reasoners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("recipes")(recipes.recipes)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run a command; an error is one sentence, with exit code 2 for bad input and 1 for a failed run."""
    try:
        app()
    except UserError as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; add --resume to the same command to go on", 130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _fail(f"the disk is full{where}; free some space and add --resume to the same command to go on", 1)
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name or "")
        if extra is None:
            raise
        _fail(f"this command needs {error.name}: pip install 'underdog-rl[{extra}]'", 2)


def _fail(sentence: str, code: int) -> None:
    print(f"underdog: {sentence}", file=sys.stderr)
    sys.exit(code)


def _extra_of(module: str) -> str | None:
    root = module.partition(".")[0]
    if root in {"torch", "transformers", "peft", "datasets", "safetensors", "tokenizers", "jinja2"}:
        return "train"
    return {"vllm": "vllm", "ray": "vllm", "lean_dojo": "lean"}.get(root)

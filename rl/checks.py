"""What `--dry-run` tries without a model's weights: the data, their wording, the adapter's places, the verifier."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..parts import AbsentError, UserError
from .choices import name_of
from .config import Config
from .data.prompts import Prompts, wording
from .data.split import Split, load
from .gold import try_on_gold

if TYPE_CHECKING:
    from torch import nn

Say = Callable[[str], None]


def check(config: Config, say: Say) -> None:
    """Try each of them and say in a line how it went, or why it cannot be tried here.

    Nothing is written but what the hub's libraries keep in their caches, and no weights are read.

    Raises:
        UserError: something is there, and wrong: a column, a template, the adapter's targets.
        RunError: the verifier does not find enough of the gold answers right.
    """
    split = _tried("data", say, lambda: load(config.data, config.seed))
    if split is not None:
        say(f"data: {_counts(split)}")
    with tempfile.TemporaryDirectory(prefix="underdog-") as scratch:
        found = _tried("model", say, lambda: _without_weights(config, Path(scratch)))
    if found is not None:
        tokenizer, model = found
        if split is not None:
            _check_prompts(wording(config.data, tokenizer), split, say)
        say(f"adapter: {_places(config, model)}")
    if split is None:
        return
    try:
        say(try_on_gold(config, split.train, split.held_out))
    finally:
        config.verifier.close()


def _counts(split: Split) -> str:
    removed = split.counts["data/duplicates"] + split.counts["data/overlap"]
    return f"{len(split.train)} problems to train on, {len(split.held_out)} held out; {removed} duplicates left out"


def _without_weights(config: Config, scratch: Path) -> tuple[Any, nn.Module]:
    """The tokenizer of the model as a run would find it, and its architecture; nothing is made for it.

    Raises:
        AbsentError: it is neither here nor within reach, or a recipe makes it and has not yet.
    """
    from .learner.model import load_tokenizer, skeleton
    from .made import known_model
    from .vocabulary import choose_words, with_words

    model = known_model(config.model)
    choose_words(config, model, scratch)
    model = with_words(model, scratch)
    return load_tokenizer(model), skeleton(model)


def _check_prompts(prompts: Prompts, split: Split, say: Say) -> None:
    """Word all problems; the counts, and the first prompt as the model sees it."""
    (train, counts), (held_out, apart) = prompts.fit(split.train), prompts.fit(split.held_out)
    first = next(iter([*train, *held_out]), None)
    if first is None:
        raise UserError("no problem is left: raise data.max_prompt_tokens, or set data.cut_prompts=true")
    too_long, cut = (counts[name] + apart[name] for name in ("prompts/too_long", "prompts/cut"))
    say(f"prompts: {too_long} too long left out, {cut} cut; template {prompts.hash}")
    problem, ids = first
    said = f"the first prompt, of {len(ids)} tokens, whose gold answer is {_short(problem.answer)}:"
    say(f"{said}\n{prompts.text(problem)}")


def _places(config: Config, plain: nn.Module) -> str:
    """Attach the adapter to the architecture; what is trained there."""
    total = sum(p.numel() for p in plain.parameters())
    adapted = config.learner.adapter.attach(plain, 0, None)
    trained = [p.numel() for p in adapted.parameters() if p.requires_grad]
    name = name_of(config.learner.adapter)
    return f"{name} trains {sum(trained):,} numbers in {len(trained)} tensors, of a model of {total:,} parameters"


def _tried(what: str, say: Say, attempt: Callable[[], Any]) -> Any:
    """What `attempt` gives; None where what it needs is not here, which is said."""
    try:
        return attempt()
    except AbsentError as error:
        say(f"{what}: not checked: {error}")
    except ModuleNotFoundError as error:
        say(f"{what}: not checked: this needs {error.name}: pip install 'underdog-rl[train]'")
    return None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 100 else f"{text[:48]} … {text[-48:]}")

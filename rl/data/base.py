"""What every source of problems is: options that load into a list of problems."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...parts import Part
from ...records import Problem


class Data(Part):
    """Where problems come from, how they are put to the model, and which of them training never sees."""

    template: str = "plain"
    """How a problem is worded: plain, boxed, open-rs, open-r1, lighteval, gpqa, or a text of your own with {prompt}."""
    system: str | None = None
    """System text; unset takes the template's own."""
    chat: bool = True
    """Use the chat template of the model's own tokenizer where it has one; false gives plain text."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Longest prompt, in tokens; problems with longer ones are left out and counted."""
    cut_prompts: bool = False
    """Cut a longer prompt on the left instead of leaving its problem out: what stands first, a system text, is lost."""
    held_out: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] = 256
    """Problems (below 1: share of them) kept for evaluation, where the data have no evaluation set."""
    split_seed: int = 0
    """Seed of the held-out choice, not the run's: every run is evaluated on the same problems."""

    def load(self, seed: int) -> list[Problem]:
        """All problems to train on in a fixed order, none for a mere test set; `seed` is for generators."""
        raise NotImplementedError

    def load_evaluation(self, seed: int) -> list[Problem] | None:
        """The data's own evaluation set, or None where problems are held out of `load` instead."""
        return None

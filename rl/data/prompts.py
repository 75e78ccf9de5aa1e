"""From problems to prompt tokens, with the chat template of the model's own tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...parts import UserError, nearest
from ...records import Message, Problem

if TYPE_CHECKING:
    from .base import Data

SLOT = "{prompt}"
STEPWISE = "Think step by step before answering."
CHUNK = 1024
"""Problems tokenised at a time: fast, without holding every tokenizer output of a large data set at once."""


@dataclass(frozen=True, slots=True)
class Template:
    """How a problem is worded; `opens_think` False takes away a `<think>` that the chat template opened."""

    prompt: str = SLOT
    system: str | None = None
    opens_think: bool = True


TEMPLATES = {
    "plain": Template(),
    # The wording that Qwen2.5-Math and DeepSeek-R1 recommend.
    "boxed": Template(SLOT + "\nPlease reason step by step, and put your final answer within \\boxed{}."),
    # Open-RS and Open-R1 letter by letter as Tina's code has them, with the line breaks around and the doubled braces:
    # the model itself writes both think tags, as rewards expect.
    "open-rs": Template(
        system="\nA conversation between User and Assistant. The user asks a question, and the Assistant "
        "solves it.\nThe assistant first thinks about the reasoning process in the mind and then provides "
        "the user with the answer, and put your final answer within \\boxed{{}} .\n"
        "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, \ni.e., <think> reasoning process here </think> <answer> answer here </answer>.\n"
        "Note that respond by English, NOT use other languages.\n",
        opens_think=False,
    ),
    "open-r1": Template(
        system="\nYou are a helpful AI Assistant that provides well-reasoned and detailed responses.\n"
        "You first think about the reasoning process as an internal monologue and then provide the user "
        "with the answer.\nRespond in the following format: <think>\n...\n</think>\n<answer>\n...\n</answer>\n",
        opens_think=False,
    ),
    # What lighteval's tasks ask in evaluations of Open-R1, Open-RS and Tina, after OpenAI's simple-evals.
    "lighteval": Template(
        "Solve the following math problem efficiently and clearly.  The last line of your response should be of the "
        "following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) "
        f"where ANSWER is just the final number or expression that solves the problem. {STEPWISE}\n\n{SLOT}"
    ),
    "gpqa": Template(
        "Answer the following multiple choice question. The last line of your response should be of the following "
        f"format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. {STEPWISE}\n\n{SLOT}"
    ),
}


def template_of(name: str) -> Template:
    """The named template, or one whose wording is `name` itself when that holds `{prompt}`.

    Raises:
        UserError: neither; the message names the nearest template.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if SLOT in name:
        return Template(name)
    close = nearest(name, tuple(TEMPLATES))
    hint = f"did you mean {close!r}?" if close else f"choose one of {', '.join(TEMPLATES)}"
    raise UserError(f"there is no template named {name!r}, and as a text it lacks {SLOT}; {hint}")


def wording(data: Data, tokenizer: Any) -> Prompts:
    """How the problems of a recipe's data block become prompts."""
    return Prompts(tokenizer, data.template, data.system, data.max_prompt_tokens, data.chat, data.cut_prompts)


class Prompts:
    """Turns problems into prompt tokens for one tokenizer; the same problem always gives the same tokens."""

    def __init__(
        self,
        tokenizer: Any,
        template: str = "plain",
        system: str | None = None,
        max_tokens: int = 1024,
        chat: bool = True,
        cut: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template_of(template)
        self._system = self._template.system if system is None else system
        self._max_tokens, self._cut = max_tokens, cut
        self._chat = chat and bool(getattr(tokenizer, "chat_template", None))

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 over everything that words a prompt; to be logged."""
        chat = self._tokenizer.chat_template if self._chat else None
        wording = json.dumps([asdict(self._template), self._system, chat], sort_keys=True)
        return hashlib.sha256(wording.encode()).hexdigest()[:12]

    def text(self, problem: Problem) -> str:
        """The prompt as text, special tokens of the chat template included.

        Raises:
            UserError: there is no chat template for a problem of several turns, or it refuses them.
        """
        turns = self._turns(problem)
        if self._chat:
            return self._render(problem, turns)
        if len([turn for turn in turns if turn["role"] != "system"]) > 1:
            raise UserError(
                f"problem {problem.id!r} is a chat of several turns, which needs a chat template: "
                "take a model whose tokenizer has one, and leave data.chat at true"
            )
        return "\n\n".join(turn["content"] for turn in turns)

    def encode(self, problem: Problem) -> np.ndarray:
        """prompt_ids int32 [T], of whatever length."""
        return self._ids([problem])[0]

    def fit(self, problems: Sequence[Problem]) -> tuple[list[tuple[Problem, np.ndarray]], dict[str, int]]:
        """The problems whose prompts fit, each with its prompt_ids int32 [T], and counts of the others.

        Counts: `prompts/kept`, of which `prompts/cut` (their last `max_tokens`, where that was asked for),
        `prompts/too_long` (over `max_tokens`, and left out), `prompts/empty` (no token).
        """
        kept: list[tuple[Problem, np.ndarray]] = []
        counts = {"prompts/kept": 0, "prompts/cut": 0, "prompts/too_long": 0, "prompts/empty": 0}
        for start in range(0, len(problems), CHUNK):
            chunk = problems[start : start + CHUNK]
            for problem, ids in zip(chunk, self._ids(chunk), strict=True):
                if 0 < len(ids) <= self._max_tokens or (self._cut and len(ids)):
                    kept.append((problem, ids[-self._max_tokens :]))
                    counts["prompts/cut"] += len(ids) > self._max_tokens
                else:
                    counts["prompts/too_long" if len(ids) else "prompts/empty"] += 1
        counts["prompts/kept"] = len(kept)
        return kept, counts

    def _turns(self, problem: Problem) -> list[Message]:
        """The problem as chat turns: the template words the last one, the system text comes first."""
        prompt = problem.prompt
        *before, last = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
        worded = Message(role=last["role"], content=self._template.prompt.replace(SLOT, last["content"]))
        turns = [*before, worded]
        if self._system and turns[0]["role"] != "system":
            turns.insert(0, Message(role="system", content=self._system))
        return turns

    def _render(self, problem: Problem, turns: list[Message]) -> str:
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise UserError(
                f"the model's chat template refuses problem {problem.id!r} ({error}); "
                "word it by data.template instead of data.system, or set data.chat=false"
            ) from error
        return text if self._template.opens_think else re.sub(r"<think>\s*$", "", text)

    def _ids(self, problems: Sequence[Problem]) -> list[np.ndarray]:
        texts = [self.text(problem) for problem in problems]
        # A chat template writes its special tokens itself; plain text gets the tokenizer's (Llama's BOS).
        encoded = self._tokenizer(texts, add_special_tokens=not self._chat, verbose=False)["input_ids"]
        return [np.array(ids, dtype=np.int32) for ids in map(self._open_ended, encoded, texts)]

    def _open_ended(self, ids: list[int], text: str) -> list[int]:
        """Without the end token that some tokenizers append: it would end the completion before it begins."""
        eos = self._tokenizer.eos_token_id
        appended = not self._chat and ids and ids[-1] == eos and not text.endswith(self._tokenizer.eos_token)
        return ids[:-1] if appended else ids

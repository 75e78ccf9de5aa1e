"""Our rewards as TRL's `reward_funcs`, called as TRL calls them and then by TRL itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import underdog
from underdog.parts import UserError, names
from underdog.records import Group, Problem, Verdict
from underdog.rewards.shaping.none import NONE
from underdog.rl.choices import Choice
from underdog.rl.own import own_reward
from underdog.rl.reward_func import reward_func
from underdog.rl.scoring import metrics, score
from underdog.verifiers.base import Verifier

RIGHT, WRONG = r"\boxed{7}", r"\boxed{8}"


def test_judged_by_the_column_answer_or_solution():
    accuracy = underdog.reward_func("accuracy")
    assert accuracy.__name__ == "accuracy"
    assert accuracy(["p", "p", "q"], [RIGHT, WRONG, WRONG], answer=["7", "7", "8"]) == [1, 0, 1]
    assert accuracy(["p"], [RIGHT], solution=["We find $\\boxed{7}$."]) == [1]
    assert accuracy(["p"], [RIGHT], answer=["x #### 7"], solution=["\\boxed{8}"]) == [1]
    assert accuracy(prompts=["p"], completions=[RIGHT], completion_ids=[[1]], answer=["7"], trainer_state=None) == [1]


def test_chats():
    prompt = [{"role": "user", "content": "3 + 4?"}]
    completions = [[{"role": "assistant", "content": text}] for text in (RIGHT, WRONG)]
    assert reward_func("accuracy")([prompt, prompt], completions, answer=["7", "7"]) == [1, 0]


def test_what_cannot_be_graded_is_none():
    accuracy = reward_func("accuracy")
    assert accuracy(["p", "q", "r"], [RIGHT, RIGHT, RIGHT], answer=["7", "", None]) == [1, None, None]


def test_groups_are_completions_of_the_same_problem():
    length = reward_func("length", unit="characters")
    prompts, answers = ["p", "q", "p", "q", "p"], ["7", "7", "7", "7", "8"]
    completions = [RIGHT, RIGHT + " " * 10, RIGHT + " " * 4, RIGHT, WRONG + " " * 50]
    assert length(prompts, completions, answer=answers) == [0.5, -0.5, -0.5, 0.5, 0.0]


def test_tokens_come_from_completion_ids():
    cosine = reward_func("cosine", max_len=4)
    assert cosine(["p", "p"], [RIGHT, RIGHT], [[1, 2], [1, 2, 3, 4]], answer=["7", "7"]) == pytest.approx([0.75, 0.5])
    with pytest.raises(UserError, match="completion_ids"):
        cosine(["p"], [RIGHT], answer=["7"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reward_func("unlikeliness"), "log-probs.*TRL does not pass"),
        (lambda: reward_func("acuracy"), "accuracy"),
        (lambda: reward_func("cosine", max_length=5), "max_len"),
        (lambda: reward_func("cosine", max_len=0), "max_len"),
        (lambda: reward_func("accuracy", verifier="maths"), "math"),
        (lambda: reward_func("accuracy")(["p"], [RIGHT], label=["7"]), "answer or solution.*label"),
    ],
)
def test_bad_input_is_one_sentence(call, message: str):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


class Parity(Verifier):
    """Right if the text has an even number of characters; notes how often it is asked."""

    calls: list[int]

    def judge_all(self, submissions: Any) -> list[Verdict]:
        self.calls.append(len(submissions))
        return [Verdict("wrong" if len(text) % 2 else "right") for _, text in submissions]


def test_own_rewards_and_verifiers(tmp_path: Path):
    (tmp_path / "own.py").write_text(
        "def even(problem, completion):\n    return len(completion) % 2 == 0\n"
        "def loud(group):\n    return [float(s.text.isupper()) for s in group.samples]\n"
    )
    loud = reward_func(f"{tmp_path}/own.py:loud", verifier=f"{tmp_path}/own.py:even")
    assert loud.__name__ == "loud"
    assert loud(["p", "p"], ["AB", "ab"], answer=["", ""]) == [1, 0]
    even = reward_func("accuracy", verifier={"name": f"{tmp_path}/own.py:even"})
    assert even(["p", "p"], ["AB", "abc"], answer=["", ""]) == [1, 0]


def test_one_batch_is_judged_once_for_each_function():
    parity = Parity(calls=[])
    function = reward_func("accuracy", verifier=parity)
    for _ in range(2):
        assert function(["p", "p"], ["a", "ab"], answer=["", ""]) == [0, 1]
    assert function(["p"], ["b"], answer=[""]) == [0]
    assert parity.calls == [2, 1]


def tiny_tokenizer() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    letters = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz0123456789 "]
    model = tokenizers.models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<pad>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>"
    )


@pytest.mark.slow
def test_trl_trains_with_every_reward_and_logs_what_we_log(tmp_path: Path):
    trl, torch = pytest.importorskip("trl"), pytest.importorskip("torch")
    from datasets import Dataset
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    parity = Parity(calls=[])
    functions = [reward_func(name, verifier=parity) for name in names("reward")]
    seen: list[tuple[list[str], list[str], list[list[int]]]] = []

    def watch(prompts, completions, completion_ids, **columns):
        seen.append((prompts, completions, completion_ids))
        return [0.0] * len(prompts)

    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=[*functions, watch],
        train_dataset=Dataset.from_list([{"prompt": p, "answer": "7"} for p in ("what is 3", "or 4", "and 5", "or 6")]),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_steps=2,
            logging_steps=1,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=12,
            save_strategy="no",
        ),
    )
    trainer.train()

    logs = [log for log in trainer.state.log_history if "reward" in log]
    assert len(logs) == len(seen) == 2
    for log, (prompts, completions, ids) in zip(logs, seen, strict=True):
        ours = metrics(score(groups_of(prompts, completions, ids, parity), all_rewards(), NONE()))
        for key, value in ours.items():
            assert log[key] == pytest.approx(value, abs=1e-5), key
        assert 0 < log["rewards/accuracy/mean"] < 1
    assert len(parity.calls) >= 2


def all_rewards() -> dict[str, tuple[float, Any]]:
    return {name: (1.0, Choice("reward", own_reward).build(name)) for name in names("reward")}


def groups_of(prompts: list[str], completions: list[str], ids: list[list[int]], verifier: Verifier) -> list[Group]:
    """The batch as our own loop would hold it, without going through `reward_func`."""
    from underdog.records import Sample, Version

    groups = []
    for prompt in dict.fromkeys(prompts):
        at = [i for i, other in enumerate(prompts) if other == prompt]
        problem = Problem(prompt, prompt, "7")
        nothing = np.zeros(0, dtype=np.int64)
        samples = tuple(
            Sample(prompt, k, Version(0, ""), 0, nothing, np.asarray(ids[i]), None, completions[i], "eos")
            for k, i in enumerate(at)
        )
        verdicts = tuple(verifier.judge_all([(problem, completions[i]) for i in at]))
        groups.append(Group(problem, samples, verdicts))
    return groups

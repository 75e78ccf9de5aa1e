"""Prompts: the tokenizer's own chat template, named wordings, and no prompt cut unasked."""

from __future__ import annotations

import numpy as np
import pytest

from underdog.parts import UserError
from underdog.records import Message, Problem
from underdog.rl.data.prompts import TEMPLATES, Prompts

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
R1 = CHAT.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
)


def tokenizer(chat: str | None = None, adds: str = "none"):
    """One token a character; `adds` is what the tokenizer puts around plain text: none, bos or eos."""
    characters = [chr(c) for c in range(32, 127)] + ["\n"]
    vocabulary = {token: k for k, token in enumerate(["<unk>", "<s>", "</s>", *characters])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    core.decoder = tokenizers.decoders.Fuse()
    around = {"bos": "<s> $A", "eos": "$A </s>"}.get(adds)
    if around:
        core.post_processor = tokenizers.processors.TemplateProcessing(
            single=around, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    made.chat_template = chat
    return made


QUESTION = Problem("q", "What is 1+1?")


def decoded(prompts: Prompts, made, problem=QUESTION) -> str:
    return made.decode(prompts.encode(problem))


def test_without_a_chat_template_the_prompt_is_the_text():
    made = tokenizer()
    ids = Prompts(made).encode(QUESTION)
    assert ids.dtype == np.int32
    assert made.decode(ids) == "What is 1+1?"


def test_plain_text_gets_the_tokenizers_bos_and_no_end_token():
    assert decoded(Prompts(tokenizer(adds="bos")), tokenizer()) == "<s>What is 1+1?"
    assert decoded(Prompts(tokenizer(adds="eos")), tokenizer()) == "What is 1+1?"


def test_the_models_chat_template_is_used_once_and_opens_the_answer():
    made = tokenizer(CHAT, adds="bos")
    expected = made.apply_chat_template(
        [{"role": "user", "content": "What is 1+1?"}], add_generation_prompt=True, return_dict=False
    )
    assert Prompts(made).encode(QUESTION).tolist() == expected
    assert decoded(Prompts(made), made) == "<s><|user|>What is 1+1?<|assistant|>"


def test_chat_false_gives_plain_text_whatever_the_tokenizer_has():
    made = tokenizer(CHAT)
    assert decoded(Prompts(made, chat=False), made) == "What is 1+1?"


def test_a_text_with_the_slot_words_the_problem_and_leaves_other_braces_alone():
    made = tokenizer()
    text = decoded(
        Prompts(made, template=r"Q: {prompt} Use \boxed{}. {x} A:"), made, Problem("b", "Is {prompt} a set?")
    )
    assert text == r"Q: Is {prompt} a set? Use \boxed{}. {x} A:"


def test_system_text_stands_first_and_replaces_the_templates_own():
    made = tokenizer(CHAT)
    assert decoded(Prompts(made, system="Be brief."), made) == "<s><|system|>Be brief.<|user|>What is 1+1?<|assistant|>"
    assert decoded(Prompts(tokenizer(), system="Be brief."), made) == "Be brief.\n\nWhat is 1+1?"
    assert "Be brief." in Prompts(made, template="open-rs", system="Be brief.").text(QUESTION)
    assert "A conversation" not in Prompts(made, template="open-rs", system="Be brief.").text(QUESTION)


def test_a_chat_keeps_its_turns_and_its_own_system_text():
    turns = (
        Message(role="system", content="S"),
        Message(role="user", content="1"),
        Message(role="assistant", content="2"),
        Message(role="user", content="3"),
    )
    text = Prompts(tokenizer(CHAT), template="{prompt}!", system="other").text(Problem("c", turns))
    assert text == "<s><|system|>S<|user|>1<|assistant|>2<|user|>3!<|assistant|>"
    with pytest.raises(UserError, match="needs a chat template"):
        Prompts(tokenizer()).encode(Problem("c", turns))


@pytest.mark.parametrize("name", ["open-rs", "open-r1"])
def test_think_tags_are_left_to_the_model_where_the_wording_asks_for_them(name):
    """As Tina trains: a `<think>` that the chat template opens would hide half of the format from the reward."""
    text = Prompts(tokenizer(R1), template=name).text(QUESTION)
    assert text.endswith("<|user|>What is 1+1?<|assistant|>")
    assert "<answer>" in text
    assert Prompts(tokenizer(R1)).text(QUESTION).endswith("<|assistant|><think>\n")


def test_tina_s_system_texts_are_letter_by_letter_those_of_its_code():
    """tina/utils/prompt.py: texts between line breaks; doubled braces, since nothing there formats them."""
    rs, r1 = TEMPLATES["open-rs"].system or "", TEMPLATES["open-r1"].system or ""
    assert rs.startswith("\nA conversation between User and Assistant.")
    assert r" within \boxed{{}} ." in rs
    assert "tags, respectively, \ni.e., <think> reasoning process here </think>" in rs
    assert rs.endswith("NOT use other languages.\n")
    assert r1.startswith("\nYou are a helpful AI Assistant that provides well-reasoned and detailed responses.\nYou")
    assert r1.endswith(" format: <think>\n...\n</think>\n<answer>\n...\n</answer>\n")


def test_every_named_template_holds_the_problem():
    for name in TEMPLATES:
        assert "What is 1+1?" in Prompts(tokenizer(CHAT), template=name).text(QUESTION)
    assert r"\boxed{}" in Prompts(tokenizer(), template="boxed").text(QUESTION)


def test_an_unknown_template_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'open-rs'"):
        Prompts(tokenizer(), template="open_rs")


def test_a_chat_template_that_refuses_is_one_sentence():
    with pytest.raises(UserError, match="System role not supported") as caught:
        Prompts(tokenizer(NO_SYSTEM), system="S").encode(QUESTION)
    assert "\n" not in str(caught.value)


def test_over_long_prompts_are_left_out_whole_and_counted():
    problems = [Problem(str(n), "x" * n) for n in (0, 1, 5, 6, 7)]
    kept, counts = Prompts(tokenizer(), max_tokens=5).fit(problems)
    assert [(p.id, len(ids)) for p, ids in kept] == [("1", 1), ("5", 5)]
    assert counts == {"prompts/kept": 2, "prompts/cut": 0, "prompts/too_long": 2, "prompts/empty": 1}


def test_over_long_prompts_are_cut_on_the_left_where_that_is_asked_for():
    made = tokenizer()
    problems = [Problem(text, text) for text in ("", "abcde", "abcdef", "abcdefgh")]
    kept, counts = Prompts(made, max_tokens=5, cut=True).fit(problems)
    assert [made.decode(ids) for _, ids in kept] == ["abcde", "bcdef", "defgh"]
    assert counts == {"prompts/kept": 3, "prompts/cut": 2, "prompts/too_long": 0, "prompts/empty": 1}


def test_many_problems_get_the_tokens_that_each_gets_alone():
    made = tokenizer(CHAT)
    prompts = Prompts(made, template="boxed")
    problems = [Problem(str(n), f"{n}+{n}?") for n in range(2500)]
    kept, _ = prompts.fit(problems)
    assert [p.id for p, _ in kept] == [p.id for p in problems]
    for k in (0, 1023, 1024, 2499):
        assert kept[k][1].tolist() == prompts.encode(problems[k]).tolist()


def test_the_hash_tells_wordings_apart():
    hashes = [
        Prompts(tokenizer()).hash,
        Prompts(tokenizer(), template="boxed").hash,
        Prompts(tokenizer(), system="S").hash,
        Prompts(tokenizer(CHAT)).hash,
        Prompts(tokenizer(R1)).hash,
    ]
    assert len(set(hashes)) == len(hashes)
    assert Prompts(tokenizer(CHAT), chat=False, max_tokens=3).hash == Prompts(tokenizer()).hash

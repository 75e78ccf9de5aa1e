"""Goals for a tiny prover: parts are disjoint, the language cannot search, and no goal falls to two steps."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import UserError
from underdog.rl.data import lean_goals
from underdog.rl.data.goals.language import TOKENS, Goal, Steps, both, counted, implies, leaf, of, steps_of, written
from underdog.rl.data.lean_goals import FAMILIES, HEADER, UNSEEN, LeanGoals, goals
from underdog.rl.learner.tokenizer import build_tokenizer
from underdog.verifiers.lean import lean as lean_module
from underdog.verifiers.lean.lean import Lean
from underdog.verifiers.lean.toolchain import TO_THE_END

ROOT = Path(__file__).parents[3]
ALL = (*FAMILIES, *UNSEEN)
FORBIDDEN = ("grind", "omega", "decide", "simp_all", "simp", "<;>", "first", "repeat", "all_goals", "try")


@pytest.fixture(scope="module")
def tested() -> dict[str, Goal]:
    """A hundred goals, ten of each family."""
    return goals("test", 100, ALL)


def test_a_formula_is_written_for_lean_and_said_in_a_prompt() -> None:
    p, q, r = map(leaf, "PQR")
    assert implies(p, q, r).lean() == "P → Q → R"
    assert implies(implies(p, q), r).lean() == "(P → Q) → R"
    assert both("∨", both("∧", p, q), both("∨", q, r)).lean() == "P ∧ Q ∨ (Q ∨ R)"
    product = both("*", leaf("1"), both("+", leaf("a"), leaf("0")))
    assert product.lean() == "1 * (a + 0)"
    assert product.words() == "one times lp a plus zero rp"
    step = both("∀", leaf("x"), implies(of("P", "x"), of("Q", "x")))
    assert step.lean() == "∀ x, P x → Q x"
    assert step.words() == "all x P x to Q x"


def test_a_policy_can_write_the_proof_language_and_nothing_that_searches() -> None:
    tree = json.loads((ROOT / "recipes" / "shapes" / "tiny-prover.json").read_text())
    assert tree["tokenizer"]["tokens"] == list(TOKENS)
    assert not set(FORBIDDEN) & set(TOKENS)
    assert not set("()⟨⟩{}·.,<") & (set(TOKENS) - {"."}), "no brackets: an argument is a name"
    tokenizer = build_tokenizer(tree["tokenizer"])
    for goal in goals("train", 90, tuple(FAMILIES)).values():
        for text in (goal.prompt(), *map(written, goal.proofs)):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text


def test_parts_share_no_goal_and_are_the_same_every_time() -> None:
    parts = {part: goals(part, 400, tuple(FAMILIES)) for part in ("warmup", "train", "test")}
    stated = {part: {goal.prompt() for goal in made.values()} for part, made in parts.items()}
    assert all(len(texts) == 400 for texts in stated.values())
    assert not any(one & two for one, two in itertools.combinations(stated.values(), 2))
    assert goals("train", 50, tuple(FAMILIES)) == dict(list(parts["train"].items())[:50])
    families = {goal.family for goal in parts["train"].values()}
    assert families == set(FAMILIES)
    assert {p.info["source"] for p in LeanGoals().load_evaluation(0)} == families | set(UNSEEN)


def test_a_family_that_is_used_up_says_so() -> None:
    with pytest.raises(UserError, match="the family algebra has no more than"):
        goals("test", 9000, ("algebra",))


@given(number=st.integers(0, 2**32), family=st.sampled_from(ALL))
def test_every_proof_takes_three_steps_and_names_only_what_is_there(number: int, family: str) -> None:
    goal = {**FAMILIES, **UNSEEN}[family](lean_goals.np.random.default_rng(number))
    assert len(set(goal.proofs)) == len(goal.proofs)
    labels = {label for label, _ in goal.hypotheses}
    assert len(labels) == len(goal.hypotheses)
    for proof in goal.proofs:
        assert len(steps_of(written(proof))) >= 3
        assert {word for word in written(proof).split() if word[0] == "h" and word[1:].isdigit()} <= labels


def test_plain_is_the_share_of_plainest_proofs() -> None:
    rows = LeanGoals(count=900, plain=0.8).load(0)
    made = goals("train", 900, tuple(FAMILIES))
    plainest = sum(row.solution == written(made[row.id].proofs[0]) for row in rows) / len(rows)
    assert 0.75 < plainest < 0.85
    assert all(row.solution == written(made[row.id].proofs[0]) for row in LeanGoals(plain=1).load(0))


def test_terse_is_the_share_of_solutions_that_do_not_say_what_is_to_be_proved() -> None:
    """Of those that could say it; and it changes nothing else."""
    plain, mixed, terse = ([str(row.solution) for row in LeanGoals(terse=share).load(0)] for share in (0, 0.6, 1))
    assert [written(steps_of(solution)) for solution in plain] == terse
    said = [(one, other) for one, other in zip(plain, mixed, strict=True) if "show" in one]
    assert len(said) > 500
    assert 0.53 < sum("show" not in other for _, other in said) / len(said) < 0.67
    assert all("show" not in other or one == other for one, other in said)


@pytest.mark.slow
def test_lean_proves_every_reference_and_no_two_steps_of_theirs(
    lean_command: str, tested: dict[str, Goal], tmp_path: Path
) -> None:
    """On 100 goals: one proof of each, all proofs of ten with `show` and without; and all series of one or two of a
    goal's own steps, tried as alternatives of one proof, which must fail unless a whole proof is among them."""
    short = {name: _short(goal) for name, goal in tested.items()}
    whole = {name: [*tried, tested[name].proofs[0]] for name, tried in list(short.items())[:10]}
    lines = [f"{tested[name].statement(name)} := by first {_any(tried)}" for name, tried in short.items()]
    lines += [f"{tested[name].statement(f'{name}_w')} := by first {_any(tried)}" for name, tried in whole.items()]
    with ThreadPoolExecutor(1) as beside:
        refused = beside.submit(_refused, lean_command, lines, tmp_path)
        _all_proved(lean_command, tested, tmp_path / "verdicts.sqlite")
        assert refused.result() == set(range(len(short))), "the numbers of lines that fail"


def _all_proved(lean: str, tested: dict[str, Goal], cache: Path) -> None:
    problems = {problem.id: problem for problem in LeanGoals(test=100).load_evaluation(0)}
    chosen = [(name, goal.proofs[-1]) for name, goal in tested.items()]
    for name, goal in list(tested.items())[:10]:
        chosen += [(name, form) for proof in goal.proofs for form in (proof, counted(proof))]
    rows = [(problems[name], written(proof)) for name, proof in chosen]
    options = {"command": lean, "batch": 1024, "workers": 1, "threshold": "declarations", "cache": str(cache)}
    verdicts = Lean(**options).judge_all(rows)
    assert [(p.id, text) for (p, text), v in zip(rows, verdicts, strict=True) if v.outcome != "right"] == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean_module, "compile_all", None)
        assert Lean(**options).judge_all(rows) == verdicts, "another process takes them from the ledger"


def _short(goal: Goal) -> list[Steps]:
    own = list(dict.fromkeys(step for proof in goal.proofs for step in counted(proof)))
    return [series for length in (1, 2) for series in itertools.product(own, repeat=length)]


def _any(tried: Sequence[Steps]) -> str:
    return " ".join(f"| ({written(steps)} ; done)" for steps in tried)


def _refused(lean: str, lines: Sequence[str], folder: Path) -> set[int]:
    """Which of a file's theorems, one a line, have an error."""
    source = folder / "short.lean"
    source.write_text("\n".join([*HEADER.splitlines(), *lines]))
    done = subprocess.run([lean, "-j1", "--json", TO_THE_END, str(source)], cwd=folder, capture_output=True, text=True)
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {m["pos"]["line"] - len(HEADER.splitlines()) - 1 for m in said if m["severity"] == "error"}

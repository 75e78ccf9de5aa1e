"""Ours against math-verify called directly, in turns, on the same completions.

    python benchmarks/verify.py [--pairs 5000] [--workers 2] [--data FOLDER]

Half of the pairs are GSM8K problems (integer gold), half MATH-500 problems. Each completion is the data set's worked
solution ending in a box; about half of the boxes are wrong (a neighbouring number, another sign, a reciprocal, the
answer of another problem of the same subject), and of the right ones of MATH-500 about 40 % are spelled otherwise than
the gold answer. All pairs are distinct, and our cache is off.

Ours is `Math().judge_all` with its worker processes; math-verify is `verify(parse(gold), parse(completion))` in this
process with its own settings and time limits. The two take turns in chunks, so that whatever else the machine does
meets both; workers are started, and both libraries warmed up, before the clock runs. Also printed: how many pairs our
exact stage left to the workers, and where the two disagree.

The last line is `ratio <integer gold> <MATH-500>`: seconds of math-verify over ours.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from math_verify import parse, verify

from underdog.records import Problem
from underdog.verifiers.math.extraction import boxes
from underdog.verifiers.math.math import Math

DATA = Path(__file__).resolve().parents[1] / "../shared/data"
CHUNK = 125
OPENINGS = ("", "Let's think step by step. ", "We solve this carefully. ", "First, note the following. ")
SHOWN = 8
"""Disagreements printed of each set."""


@dataclass(frozen=True)
class Pair:
    """A gold answer, a completion, and whether the completion was made to be right."""

    gold: str
    completion: str
    right: bool


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def gsm8k_pairs(folder: Path, count: int, draw: random.Random) -> list[Pair]:
    """Worked solutions of grade-school problems, every second one with a wrong number in its box."""
    problems = rows(folder / "gsm8k/test.jsonl") + rows(folder / "gsm8k/train.jsonl")
    pairs = []
    for index, row in enumerate(problems[:count]):
        work, _, gold = row["answer"].rpartition("####")
        gold, right = gold.strip(), index % 2 == 0
        answer = gold if right else wrong_number(gold, draw)
        work = re.sub(r"<<[^>]*>>", "", work)
        pairs.append(Pair(gold, rf"{work}So the final answer is $\boxed{{{answer}}}$.", right))
    return pairs


def wrong_number(gold: str, draw: random.Random) -> str:
    """A number that is not the gold one, as models miss it."""
    value = int(gold.replace(",", ""))
    return str(draw.choice([value + 1, value - 1, value * 2, value * 10, value + 10, -value if value else 3]))


def math_pairs(folder: Path, count: int, draw: random.Random) -> list[Pair]:
    """Worked solutions of competition problems, their last box refilled; several distinct ones a problem."""
    problems = rows(folder / "math500/test.jsonl")
    by_subject: dict[str, list[str]] = {}
    for row in problems:
        by_subject.setdefault(row["subject"], []).append(row["answer"])
    seen: set[tuple[str, str]] = set()
    pairs: list[Pair] = []
    while len(pairs) < count:
        row, gold = problems[len(pairs) % len(problems)], problems[len(pairs) % len(problems)]["answer"]
        right = draw.random() < 0.5
        answer = respelled(gold, draw) if right else wrong_answer(gold, by_subject[row["subject"]], draw)
        held = boxes(row["solution"])
        solution = row["solution"].replace(rf"\boxed{{{held[-1]}}}", rf"\boxed{{{answer}}}") if held else ""
        opening = draw.choice(
            ["", "Let's think step by step. ", "We solve this carefully. ", "First, note the following. "]
        )
        completion = f"{opening}{solution}{draw.choice(['', ' That is the final answer.', ' Done.'])}"
        if (gold, completion) in seen:
            completion += f" (Attempt {len(pairs)}.)"
        seen.add((gold, completion))
        pairs.append(Pair(gold, completion, right))
    return pairs


def respelled(gold: str, draw: random.Random) -> str:
    """The gold answer, in two cases of five in other words."""
    if draw.random() < 0.6:
        return gold
    forms: list[Callable[[str], str]] = [
        lambda text: text.replace(r"\frac", r"\dfrac"),
        lambda text: text.replace(" ", ""),
        lambda text: re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", text),
        lambda text: re.sub(
            r"\\frac\{(\d+)\}\{(\d+)\}", lambda m: rf"\frac{{{2 * int(m[1])}}}{{{2 * int(m[2])}}}", text
        ),
        lambda text: f"{text}.0" if text.isdigit() else text,
        lambda text: f"x = {text}" if re.fullmatch(r"-?[\d.]+", text) else text,
        lambda text: rf"{text} \,",
    ]
    return draw.choice(forms)(gold)


def doubled(fraction: re.Match[str]) -> str:
    """The same fraction, unreduced."""
    above, below = (2 * int(number) for number in fraction.groups())
    return rf"\frac{{{above}}}{{{below}}}"


def wrong_answer(gold: str, others: Sequence[str], draw: random.Random) -> str:
    """Another number within the answer, the other sign, or another problem's answer."""
    numbers = list(re.finditer(r"\d+", gold))
    kind = draw.random()
    if kind < 0.5 and numbers:
        one = draw.choice(numbers)
        changed = str(int(one.group()) + draw.choice([1, 2, 3, 5, 10]))
        return gold[: one.start()] + changed + gold[one.end() :]
    if kind < 0.6 and numbers:
        return f"-{gold}" if not gold.startswith("-") else gold[1:]
    different = [other for other in others if other != gold]
    return draw.choice(different)


def compare(name: str, pairs: Sequence[Pair], ours: Math) -> float:
    """Seconds of math-verify over ours, in turns; prints rates and disagreements."""
    seconds = {"ours": 0.0, "math-verify": 0.0}
    verdicts, theirs = [], []
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        begin = time.perf_counter()
        verdicts += ours.judge_all([(Problem(str(start), "?", pair.gold), pair.completion) for pair in chunk])
        middle = time.perf_counter()
        theirs += [verify(parse(f"${pair.gold}$"), parse(pair.completion)) for pair in chunk]
        seconds["ours"] += middle - begin
        seconds["math-verify"] += time.perf_counter() - middle
    right = [verdict.outcome == "right" for verdict in verdicts]
    labels = [pair.right for pair in pairs]
    print(f"{name}: {len(pairs)} pairs, {sum(labels)} made to be right")
    for side, found in (("ours", right), ("math-verify", theirs)):
        agree = sum(a == b for a, b in zip(found, labels, strict=True))
        print(f"  {side:<12} {seconds[side]:8.2f} s {len(pairs) / seconds[side]:10.0f} pairs/s, as made: {agree}")
    print(f"  reasons: {dict(Counter(verdict.reason for verdict in verdicts).most_common())}")
    differing = [(p, a, b) for p, a, b in zip(pairs, right, theirs, strict=True) if a != b]
    for pair, a, b in differing[:SHOWN]:
        print(f"  differ: gold {pair.gold!r}, box {boxes(pair.completion)[-1]!r}: ours {a}, math-verify {b}")
    return seconds["math-verify"] / seconds["ours"]


def measure_math(folder: Path, count: int, workers: int) -> tuple[float, float]:
    """The ratios on integer gold and on MATH-500."""
    draw = random.Random(0)
    gsm8k, math500 = gsm8k_pairs(folder, count // 2, draw), math_pairs(folder, count - count // 2, draw)
    ours = Math(workers=workers, cache=0)
    try:
        # Something for each worker that exact algebra leaves open, so that both have started.
        warm = [(Problem("warm", "?", r"\int_0^1 x dx"), rf"\boxed{{\int_0^1 x^{k} dx}}") for k in range(2, 9)]
        ours.judge_all(warm)
        verify(parse("$x+1$"), parse(r"So $\boxed{1+x}$"))
        return compare("GSM8K (integer gold)", gsm8k, ours), compare("MATH-500", math500, ours)
    finally:
        ours.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    integer, math500 = measure_math(options.data, options.pairs, options.workers)
    print(f"ratio {integer:.1f} {math500:.1f}")


if __name__ == "__main__":
    main()

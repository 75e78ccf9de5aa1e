"""Answers made to stall, crash, exhaust or fool the mathematics verifier: each is answered in time, none is right."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from underdog.records import Problem, Verdict
from underdog.verifiers.math.math import Math

LIMIT = 3.0
"""Seconds for one comparison in a worker."""
GOLDS = (
    "7", "x^2+7", r"\sqrt{2}", "(1,2)", r"[0,\frac{7}{3})", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\text{east}",
    "3x-y+13=0", r"\{1,2,3\}", r"\frac{\pi}{2}",
)  # fmt: skip
"""No hostile answer is equal to any of these."""
LARGE = (10**2, 10**4, 10**6)


def numbers() -> Iterator[str]:
    """Towers, factorials, binomials, sums without end, digits without end."""
    for base in (2, 9, 10, 123):
        for height in (3, 5, 9, 40, 100):
            yield f"{base}^{{" * height + str(base) + "}" * height
            yield f"({base}^" * height + str(base) + ")" * height
        for digits in (5, 9, 30, 200):
            power = "9" * digits
            yield from (f"{base}^{{{power}}}", f"{base}^{power}", f"{base}^{{-{power}}}", rf"\sqrt[{power}]{{{base}}}")
    for digits in (4, 6, 9, 25):
        n = "9" * digits
        yield from (
            f"{n}!",
            f"({n})!!",
            f"({n}!)!",
            rf"\binom{{{n}}}{{{n[:-1]}}}",
            rf"{n}^{{{n}!}}",
            f"5!{'!' * digits}",
        )
        yield rf"\sum_{{i=1}}^{{{n}}} \frac{{1}}{{i}}"
        yield from (rf"\prod_{{i=1}}^{{{n}}} i", rf"\lfloor 10^{{{n}}}\pi\rfloor")
    for size in LARGE:
        yield from ("9" * size, "0." + "3" * size, "1" + "0" * size, "0" * size + "8", "1,000" * size, "-" * size + "8")
        yield from (f"1e{size}", f"1e-{size}", f"{'1/' * size}2", f"{'1+' * size}1", "8" + r"\cdot 1" * size)


def shapes() -> Iterator[str]:
    """Nesting, lengths and sizes."""
    opening = ["(", "[", r"\{", "{", r"\left(", r"\sqrt{", r"\frac{1}{", r"\sin(", r"\boxed{", "|", r"\text{", "x^{"]
    closing = [")", "]", r"\}", "}", r"\right)", "}", "}", ")", "}", "|", "}", "}"]
    for left, right in zip(opening, closing, strict=True):
        for depth in (5, 30, 140, 100_000):
            yield from (left * depth + "8" + right * depth, left * depth, right * depth, left * depth + "8")
    for count in (3, 25, 140, 50_000):
        eights = ",".join(["8"] * count)
        yield from (eights, f"({eights})", r"\{" + "1," * count + r"1\}", "7," * count, "7." * count, "8 " * count)
        yield from (char * count for char in "x+^_'%&.\\")
        yield from ("$" * (count | 1), r"\begin{pmatrix}" * count)
        yield r"\begin{pmatrix}" + r"1&2\\" * count + r"\end{pmatrix}"
        yield from (r"(0,1)\cup" * count + "(8,9)", "1<" * count + "x", "x=" * count + "8", r"\pm 8" * count)


def algebra() -> Iterator[str]:
    """What computer algebra takes long over, or has no value."""
    for power in (30, 300, 3000, 99999):
        yield from (f"(x+1)^{{{power}}}", f"(a+b+c+d+f)^{{{power}}}", f"(x^{{{power}}}+y)^{{{power}}}")
        yield rf"(1+\sqrt{{2}}+\sqrt{{3}}+\sqrt{{5}})^{{{power}}}"
        yield from (rf"\frac{{x^{{{power}}}-1}}{{x-1}}", rf"\left(\frac{{x+1}}{{x-1}}\right)^{{{power}}}")
    for depth in (3, 8, 20):
        for left, right in ((r"\sin(", ")"), (r"\sqrt{1+", "}"), (r"\frac{1}{1+", "}"), (r"\ln(1+", ")"), ("e^{", "}")):
            yield left * depth + "x" + right * depth
        yield "(x^2+" * depth + "1" + ")^2" * depth
    yield from (
        r"\int e^{-x^2}\sin(x^3)\cos(x) dx", r"\int_0^\infty \frac{\sin(x^2)}{\ln(x+e^x)} dx", r"\prod_{p} (1-p^{-2})",
        r"\sum_{n=1}^\infty \frac{1}{n^n}", r"\lim_{x\to 0} \frac{\sin(\sin(\sin x))-x}{x^{99}}", "x^x^x^x",
        r"\lim_{n\to\infty} \frac{n!}{n^n}", r"\begin{vmatrix}a&b&c\\d&e&f\\g&h&i\end{vmatrix}", "x^5+x+1=0",
        r"\sin(x)^{\cos(x)^{\tan(x)}} = \log_x(x+1)", r"x^{x}=2^{x^2}", r"\frac{0}{0}", r"\frac{7}{0}", "0^{-1}",
        r"7+\frac{1}{0}-\frac10", r"\infty-\infty+7", r"0\cdot\infty+7", r"7\cdot\frac{x-x}{x-x}", "0^0+6^{0/0}",
        r"7\frac{\sin(x)-\sin(x)}{\sin(x)-\sin(x)}", r"\log_1 7", r"\ln 0", r"\log_{0}(0)", r"(-8)^{1/3}+9i",
        r"\tan(\frac{\pi}{2})", r"\arcsin(7)", r"7^{i^{i^{i}}}", r"i^{i^{9999999}}", r"\sqrt{x}^{\sqrt{x}^{\sqrt x}}",
        r"7\cdot\frac{\sqrt{3+2\sqrt2}-1-\sqrt2}{\sqrt{3+2\sqrt2}-1-\sqrt2}", r"7^{\frac{1}{x-x}}",
        r"\sec(\frac{\pi}{2})",
    )  # fmt: skip


def texts() -> Iterator[str]:
    """What is no mathematics: code, macros, broken Unicode, forged replies."""
    broken = (
        "\ud800",
        "\udfff\ud800",
        "\x00",
        "\x1b[2J",
        "\u202e",
        "\u200b",
        "\ufffe",
        "\U0010ffff",
        "\ue000",
        "é" * 200,
    )
    for text in broken:
        yield from (text, text * 100, f"8{text}", f"{text}8", rf"\text{{{text}}}", f"x={text}", f"({text},2)")
    yield from (
        r"\input{/etc/passwd}", r"\def\a{\a\a}\a", r"\loop\iftrue\repeat", r"\csname x\endcsname", r"\write18{ls}",
        "__import__('os').abort()", "exec('7')", "lambda: 7", "[i for i in range(10**9)]", "().__class__.__bases__",
        '{"outcome": "right", "reason": "exact", "detail": "", "last": false}', "{{7*7}}", "right", "true", "\n7\n8",
        "I do not know", "the answer", "any number", "gold", "x such that x is right", "7 or anything", "7 8", "7;8",
        "7|8", "7 and 8", "not 7", "7 is wrong", "7?", "7..", "7...", "seven", "VII", "0x7", "0b111", "7L", "7j", "7_0",
        "٧", "７", "7°7", "approximately 7.01", "7.0000001", "6.9999999", "7.00000000000001", "5<7", "7=8", "8=7",
        "7=7", r"7\neq 8", "x=7=8", ",7,8", "7,7", "7:7", r"7\%", "7_8", "07.7", "+-8", "-7", "7-", "7^7", "7!", "1 7",
    )  # fmt: skip


def corpus() -> list[tuple[str, str]]:
    """Hostile answers, each with one of the golds."""
    answers = dict.fromkeys([*numbers(), *shapes(), *algebra(), *texts()])
    return [(GOLDS[i % len(GOLDS)] if i % 3 else GOLDS[0], answer) for i, answer in enumerate(answers)]


COMMANDS = r"""
\frac \sqrt \sqrt[3] \sin \log \ln \pi \infty \cup \{ \} \left( \right) \pm \text{ \\ \binom \int \cdot \le \in
\begin{pmatrix} \end{pmatrix} \sum_{n=1}^ \% \$ ^\circ \overline{ \boxed{ 10^ 99 cm e^{i and
"""
TOKENS = (*"0123456789xyzabie+-*/^_!=<>()[]{}|,.;:'&% $~#@?\u221e\u03c0\ud83d", *COMMANDS.split())


def fuzzed(count: int, seed: int) -> list[tuple[str, str]]:
    """Random rows of tokens, for a gold answer that they do not spell."""
    draw = random.Random(seed)
    return [("x^{17}+913", "".join(draw.choices(TOKENS, k=draw.randint(1, 40)))) for _ in range(count)]


def resident_mib(pid: int | str = "self") -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError


def workers_mib(verifier: Math) -> dict[int, float]:
    """The memory of each worker that is there, by its process."""
    for worker in verifier._pool._alive:
        worker.wait_until_ready()
    return {worker._process.pid: resident_mib(worker._process.pid) for worker in verifier._pool._alive}


def answered(verifier: Math, pairs: list[tuple[str, str]]) -> list[str]:
    """Judge one by one: in time, and never right. The reasons."""
    reasons = []
    for gold, answer in pairs:
        start = time.monotonic()
        verdict = verifier.judge(Problem("p", "?", gold), rf"So it is $\boxed{{{answer}}}$.")
        seconds = time.monotonic() - start
        assert verdict.outcome == "wrong", (gold, answer[:100], verdict)
        assert seconds < LIMIT + 2, (gold, answer[:100], verdict, seconds)
        reasons.append(verdict.reason)
    return reasons


@pytest.fixture(scope="module")
def verifier():
    verifier = Math(workers=2, seconds=LIMIT, cache=0)
    assert verifier.judge(Problem("p", "?", r"\int_0^1 x dx"), r"\boxed{\int_0^1 t dt}").reason == "equivalent"
    yield verifier
    verifier.close()


@pytest.mark.slow
def test_the_hostile_corpus(verifier: Math):
    pairs = corpus()
    assert len(pairs) >= 500
    reasons = answered(verifier, pairs)
    print(f"{len(pairs)} hostile answers: {dict(Counter(reasons))}")
    refused = {
        "malformed",
        "nested",
        "long_number",
        "tower",
        "exponent",
        "factorial",
        "unreadable",
        "too_long",
        "timeout",
    }
    assert refused <= set(reasons)
    assert verifier.judge(Problem("p", "?", r"\int_0^1 x dx"), r"\boxed{\int_0^1 y dy}").outcome == "right"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fuzzer(verifier: Math, seed: int):
    pairs = fuzzed(200, seed)
    assert len(answered(verifier, pairs)) == 200
    assert verifier.judge(Problem("p", "?", r"\int_0^1 x dx"), r"\boxed{\int_0^1 y dy}").outcome == "right"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at /proc")
def test_hostile_answers_leave_no_memory_behind(monkeypatch: pytest.MonkeyPatch):
    verifier = Math(workers=1)
    monkeypatch.setattr(verifier._pool, "map", lambda requests: [Verdict("wrong", "left") for _ in requests])
    pairs = [(Problem("p", "?", gold), rf"\boxed{{{answer}}}") for gold, answer in corpus() if len(answer) <= 10**4]
    verifier.judge_all(pairs)
    before = resident_mib()
    for _ in range(2):
        verifier.judge_all(pairs)
    assert resident_mib() - before < 30


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at /proc")
def test_hostile_answers_leave_no_memory_in_the_workers():
    """All of the corpus that reaches a worker, twice: what it holds after the first time, it holds after the second."""
    verifier = Math(workers=1, seconds=LIMIT, cache=0)
    requests: list[Mapping[str, Any]] = []
    ask = verifier._pool.map

    def note(some: list[Mapping[str, Any]]) -> list[Verdict]:
        requests.extend(some)
        return [Verdict("wrong", "noted")] * len(some)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifier._pool, "map", note)
        verifier.judge_all([(Problem("p", "?", gold), rf"\boxed{{{answer}}}") for gold, answer in corpus()])
    assert len(requests) > 100
    lasting = [one for one, verdict in zip(requests, ask(requests), strict=True) if verdict.reason != "timeout"]
    before = workers_mib(verifier)
    ask(lasting)
    after = workers_mib(verifier)
    verifier.close()
    print(f"{len(requests)} requests, MiB of each worker before {before}, after {after}")
    assert after.keys() == before.keys()
    assert all(after[pid] - before[pid] < 30 for pid in after)
    assert max(after.values()) < verifier.memory_mib / 2

"""Judges the whole Lean corpus on a real Lean, with the scan on and off, and prints the counts.

    python benchmarks/lean_corpus.py --lean "$(python tests/lean_toolchain.py)" --data ../shared/data

Every true goal's reference proof; every false goal with each closer; a few false goals, drawn by a seed, with every
cheat; the adversarial cases. Honest proofs and cheats are handed over together. What passes falsely is named.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underdog.verifiers.lean.lean import Lean
from underdog.verifiers.lean.source import Submission, submission_of

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Case:
    """One submission, and whether it has to be proved."""

    kind: str
    name: str
    submission: Submission
    provable: bool


def cases(data: Path, seed: int, goals: int) -> list[Case]:
    """All that is judged; `goals` false goals, drawn by `seed`, get every cheat."""
    known = _cheats()
    rows = _rows(data / "lean_core" / "core_goals.jsonl")
    false = [row for row in rows if not row["provable"]]
    found = [
        _case("true goals", row["name"], row | {"proof": row["reference_proof"]}, True)
        for row in rows
        if row["provable"]
    ]
    for row in false:
        for closer in known.CLOSERS:
            name = f"{row['name']}: {closer}"
            found.append(_case("false goals, closers", name, row | {"proof": f"by {closer}"}, False))
    for row in random.Random(seed).sample(false, min(goals, len(false))):
        for name, cheat in known.cheats(row).items():
            found.append(_case("false goals, cheats", f"{row['name']}: {name}", cheat, False))
    for row in _rows(data / "lean_verifier_tests" / "cases.jsonl"):
        text = {"proof": f"by\n{row['submission']}"} if row["mode"] == "body" else {"file": row["submission"]}
        case = _case("adversarial cases", row["id"], {"statement": row["target"]} | text, row["expect"] == "accept")
        found.append(case)
    return found


def judge(found: Sequence[Case], scan: bool, options: dict[str, Any]) -> bool:
    """Judge all cases, print the counts and every wrong verdict; whether there was none but what only replay sees."""
    verifier = Lean(scan=scan, threshold="declarations", **options)
    began, used = time.monotonic(), _processor_seconds()
    verdicts = verifier.judge_proofs([case.submission for case in found])
    seconds, used = time.monotonic() - began, _processor_seconds() - used
    verifier.close()
    print(f"\nscan {'on' if scan else 'off'}: {len(found)} submissions in {seconds:.0f} s ({used:.0f} s of processors)")
    good = True
    for kind in dict.fromkeys(case.kind for case in found):
        rows = [(case, verdict) for case, verdict in zip(found, verdicts, strict=True) if case.kind == kind]
        counts = Counter(verdict.reason for _, verdict in rows)
        wrong = [(case, verdict) for case, verdict in rows if (verdict.outcome == "right") != case.provable]
        shown = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        print(f"  {kind:22} {len(rows):4}: {shown}; misjudged: {len(wrong)}")
        for case, verdict in wrong:
            excused = not scan and case.name.rpartition(": ")[2] in _cheats().REPLAY_ONLY
            good &= excused
            print(
                f"    {case.name}: {verdict.reason} {verdict.detail[:120]}{' (only replay sees it)' if excused else ''}"
            )
    return good


def _processor_seconds() -> float:
    """What this process and all that it has waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _case(kind: str, name: str, row: dict[str, Any], provable: bool) -> Case:
    return Case(kind, name, submission_of(row), provable)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _cheats() -> Any:
    name = "lean_cheats"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "verifiers" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def main() -> None:
    """Judge with the scan on, then off; exit status 1 when something false passed or something true did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lean", default="", help="a command that behaves like lean; default: lean from PATH")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--seed", type=int, default=4, help="draws the false goals that get every cheat")
    parser.add_argument("--goals", type=int, default=5, help="how many false goals get every cheat")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    found = cases(given.data, given.seed, given.goals)
    options = {"command": given.lean, "workers": given.workers, "batch": 256}
    print(Lean(**options).surroundings(), flush=True)
    results = [judge(found, scan, options) for scan in (True, False)]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()

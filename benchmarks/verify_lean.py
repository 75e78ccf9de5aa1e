"""Proofs a second: the batch path, references and certificates included, against one Lean process a proof.

    python benchmarks/verify_lean.py --lean "$(python tests/lean_toolchain.py)" --data ../shared/data

The last line is `ratio <batched proofs a second / those of one process each>`.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from underdog.verifiers.lean.batch import compile_all
from underdog.verifiers.lean.lean import Lean
from underdog.verifiers.lean.source import member_of, submission_of
from underdog.verifiers.lean.toolchain import toolchain

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Judge the corpus's true goals in batches, and a few of them one process each; print both rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lean", default="", help="a command that behaves like lean; default: lean from PATH")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--alone", type=int, default=6, help="proofs that are compiled one process each")
    given = parser.parse_args()
    rows = [json.loads(line) for line in (given.data / "lean_core" / "core_goals.jsonl").read_text().splitlines()]
    submissions = [submission_of(row | {"proof": row["reference_proof"]}) for row in rows if row["provable"]]
    verifier = Lean(command=given.lean, workers=given.workers, batch=256, threshold="declarations")
    print(verifier.surroundings())

    began = time.monotonic()
    verdicts = verifier.judge_proofs(submissions)
    seconds = time.monotonic() - began
    proved = sum(verdict.reason == "proved" for verdict in verdicts)
    batched = len(verdicts) / seconds
    print(f"batches: {proved} of {len(verdicts)} proved and certified in {seconds:.1f} s, {batched:.2f} a second")

    members = [member_of(row, verifier.heartbeats) for row in submissions[:: len(submissions) // given.alone]]
    command = toolchain(given.lean, "", verifier.asked()).command
    began = time.monotonic()
    with ThreadPoolExecutor(given.workers) as threads:
        alone = list(threads.map(lambda member: compile_all([member], command, 1, 1)[0], members))
    seconds = time.monotonic() - began
    rate = len(alone) / seconds
    print(f"one process a proof, no certificate: {len(alone)} in {seconds:.1f} s, {rate:.3f} a second")
    print(f"ratio {batched / rate:.1f}")


if __name__ == "__main__":
    main()

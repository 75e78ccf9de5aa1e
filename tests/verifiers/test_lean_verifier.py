"""The Lean verifier: honest proofs are proved, false goals never, whatever the submission or even Lean itself does."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from underdog.records import Problem, Verdict
from underdog.verifiers.lean import lean as lean_module
from underdog.verifiers.lean import reader
from underdog.verifiers.lean import toolchain as toolchain_module
from underdog.verifiers.lean.batch import Command
from underdog.verifiers.lean.lean import Lean
from underdog.verifiers.lean.replay import Replayed
from underdog.verifiers.lean.source import Submission, member_of, submission_of, task_of
from underdog.verifiers.lean.toolchain import Toolchain

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "../shared/data"
FALSE = {"statement": "theorem target : (1 : Nat) = 2"}
TRUE = {"statement": "theorem target : (1 : Nat) + 1 = 2"}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def alive(marker: str) -> bool:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


@pytest.fixture(scope="module")
def real(lean_command: str, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A verifier that knows the references of a false and a true theorem of one name, and the latter's module."""
    verifier = Lean(command=lean_command, workers=2, threshold="declarations")
    verifier._refer([task_of(FALSE), task_of(TRUE)])
    kept: list[dict[str, bytes]] = []
    original = lean_module.compile_all

    def keep(*arguments: object) -> list:
        found = original(*arguments)  # type: ignore[arg-type]
        kept.extend(dict(result.module) for result in found if result.module)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean_module, "compile_all", keep)
        (verdict,) = verifier.judge_proofs([submission_of(TRUE | {"proof": "by rfl"})])
    folder = tmp_path_factory.mktemp("forge")
    for name, data in kept[-1].items():
        (folder / name).write_bytes(data)
    return SimpleNamespace(verifier=verifier, verdict=verdict, folder=folder)


@pytest.fixture
def hostile(real: SimpleNamespace) -> Lean:
    """A verifier that knows the references, and whose Lean is hostile."""
    command = [sys.executable, "-I", str(HERE / "hostile_lean.py"), str(real.folder)]
    verifier = Lean(command=shlex.join(command), seconds=2.0, start_seconds=3.0, workers=1, threshold="declarations")
    verifier._references.update(real.verifier._references)
    found = real.verifier._toolchain()
    called = Command(tuple(command), {}, found.command.limits, verifier.seconds, verifier.start_seconds)
    verifier._found = Toolchain(called, found.folders, None)
    return verifier


def judge_hostile(verifier: Lean, mode: str) -> Verdict:
    return verifier.judge_proofs([submission_of(FALSE | {"proof": f"by decide -- mode: {mode}"})])[0]


@pytest.mark.slow
def test_the_real_lean_judges_right(real: SimpleNamespace) -> None:
    right = real.verdict
    assert (right.outcome, right.reason, right.certificate) == ("right", "proved", "declarations")
    assert "isolation" in right.detail


@pytest.mark.slow
def test_a_lean_killed_by_hand_loses_and_changes_no_verdict(
    lean_command: str, real: SimpleNamespace, lean_killer: Callable[..., AbstractContextManager[list[int]]]
) -> None:
    """One Lean of a proof that has it for itself, one of six submissions that share it."""
    alone = "structure Own where\n  x : Nat\n\ntheorem target : (1 : Nat) + 1 = 2 := rfl"
    rows = [TRUE | {"file": alone}, *(TRUE | {"proof": proof} for proof in ("by rfl", "by omega", "by decide"))]
    rows += [FALSE | {"proof": proof} for proof in ("by rfl", "by omega", "by decide")]
    verifier = Lean(command=lean_command, workers=1, threshold="declarations")
    verifier._references.update(real.verifier._references)
    with lean_killer("Submission.lean", [1.0, 2.0]) as killed:
        verdicts = verifier.judge_proofs([submission_of(row) for row in rows])
    assert [verdict.reason for verdict in verdicts] == ["proved"] * 4 + ["lean_error"] * 3
    assert len(killed) == 2


QUICK = ("rfl", "simp", "omega", "decide", "grind", "simp_all", "sorry")
"""The closers but `exact?`, which reads the library and has a process of its own, since it finds others' theorems."""
MODES = ["other", "cut", "altered", "version", "noise", "nothing", "link", "huge", "fill", "forge", "renamed", "silent"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_hostile_lean_proves_nothing_false(hostile: Lean, real: SimpleNamespace, mode: str) -> None:
    before = {path.name: path.read_bytes() for path in real.folder.iterdir()}
    began = time.monotonic()
    verdict = judge_hostile(hostile, mode)
    assert verdict.outcome == "wrong"
    assert verdict.reason in ("cheat", "crash", "timeout", "lean_error")
    assert time.monotonic() - began < 30
    assert {path.name: path.read_bytes() for path in real.folder.iterdir()} == before


@pytest.mark.slow
def test_a_hostile_lean_writes_nothing_outside(hostile: Lean, tmp_path: Path) -> None:
    place = tmp_path / f"underdog-outside-{os.getpid()}"
    assert judge_hostile(hostile, f"outside {place}").outcome == "wrong"
    assert not place.exists()
    assert not (Path.home() / place.name).exists()


@pytest.mark.slow
def test_a_hostile_lean_connects_to_nobody(hostile: Lean) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        assert judge_hostile(hostile, f"connect {server.getsockname()[1]}").outcome == "wrong"
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fork", "endless"])
def test_nothing_of_a_hostile_lean_survives(hostile: Lean, mode: str) -> None:
    marker = f"underdog-{mode}-{os.getpid()}"
    verdict = judge_hostile(hostile, f"{mode} {marker}")
    assert verdict.reason == ("timeout" if mode == "endless" else "cheat")
    assert not alive(marker)


def test_a_lean_that_is_missing_is_infrastructure() -> None:
    verdict = Lean(command="/no/such/lean").judge(Problem("1", "", info=FALSE), "by rfl")
    assert (verdict.outcome, verdict.reason) == ("could_not_grade", "infrastructure")
    assert "no command" in verdict.detail


def test_a_row_without_a_statement_is_infrastructure() -> None:
    verdict = Lean().judge(Problem("1", "", info={}), "by rfl")
    assert (verdict.outcome, verdict.reason) == ("could_not_grade", "infrastructure")


def test_what_the_scan_refuses_needs_no_lean() -> None:
    verifier = Lean(command="/no/such/lean")
    verdicts = [verifier.judge(Problem("1", "", info=FALSE), text) for text in ("by sorry", "by rfl\ud800", "by /- x")]
    assert [(v.outcome, v.reason) for v in verdicts] == [
        ("wrong", "cheat"),
        ("wrong", "lean_error"),
        ("wrong", "lean_error"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threshold", "scan", "replay", "measured", "rewarded"),
    [
        ("auto", True, "none", "proved", "proved"),
        ("auto", True, "replayed", "proved", "proved"),
        ("auto", True, "refused", "cheat", "cheat"),
        ("auto", True, "unavailable", "uncertified", "uncertified"),
        ("declarations", True, "refused", "proved", "proved"),
        ("replayed", True, "none", "uncertified", "uncertified"),
        ("replayed", True, "replayed", "proved", "proved"),
        ("declarations", False, "none", "proved", "uncertified"),
        ("auto", False, "none", "proved", "uncertified"),
        ("declarations", False, "replayed", "proved", "proved"),
        ("declarations", False, "refused", "cheat", "cheat"),
        ("replayed", False, "none", "uncertified", "uncertified"),
    ],
)
def test_thresholds(
    real: SimpleNamespace, threshold: str, scan: bool, replay: str, measured: str, rewarded: str
) -> None:
    """What a proof is worth, by the certificate asked for, the scan, and what a replay says (none: there is none)."""
    command = [sys.executable, "-I", str(HERE / "hostile_lean.py"), str(real.folder)]
    found = real.verifier._toolchain()
    limited = Command(tuple(command), {}, found.command.limits, 5.0, 20.0)

    class Fake(Toolchain):
        def replay(self, *_: object) -> Replayed:
            assert self.tool is not None
            return Replayed(replay)  # type: ignore[arg-type]

    tool = None if replay == "none" else SimpleNamespace(kind="leanchecker", path="x")
    for expected, rewarding in ((measured, False), (rewarded, True)):
        verifier = Lean(command="x", threshold=threshold, scan=scan, workers=1)  # type: ignore[arg-type]
        verifier._references.update(real.verifier._references)
        verifier._found = (Fake if tool else Toolchain)(limited, found.folders, tool)  # type: ignore[arg-type]
        proof = "by rfl -- mode: renamed"
        if rewarding:
            verdict = verifier.judge(Problem("1", "", info=TRUE), proof)
        else:
            (verdict,) = verifier.judge_proofs([submission_of(TRUE | {"proof": proof})])
        assert verdict.reason == expected
        assert (verdict.outcome == "right") == (expected == "proved")


@pytest.mark.slow
def test_a_sample_of_the_corpus(lean_command: str, real: SimpleNamespace) -> None:
    """Honest proofs, closers and cheats in one call, scan on and off; `benchmarks/lean_corpus.py` takes all."""
    path = DATA / "lean_core" / "core_goals.jsonl"
    if not path.exists():
        pytest.skip("the corpus is not here")
    known = load("lean_cheats")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    draw = random.Random(5)
    true = draw.sample([row for row in rows if row["provable"]], 40)
    false = draw.sample([row for row in rows if not row["provable"]], 2)
    honest = [submission_of(row | {"proof": row["reference_proof"]}) for row in true]
    closers = [submission_of(row | {"proof": f"by {closer}"}) for row in false for closer in QUICK]
    cheats = {name: submission_of(row) for name, row in known.cheats(false[0]).items()}
    # What the scan lets pass shares one process; these two would need one each.
    quick = [cheat for name, cheat in cheats.items() if name not in ("file: shadowed type", "file: mutual")]
    verifier = Lean(command=lean_command, workers=1, batch=256, threshold="declarations")
    verdicts = verifier.judge_proofs([*honest, *closers, *quick])
    assert {(v.outcome, v.reason, v.certificate) for v in verdicts[:40]} == {("right", "proved", "declarations")}
    assert {v.outcome for v in verdicts[40:]} == {"wrong"}

    alone = ["file: macro_rules all"]
    gaps = ["proof: sorry in have", "proof: trailing axiom", "proof: skipKernelTC kernel", "file: axiom False"]
    gaps += ["file: axiom in between", "file: guard_msgs error", "file: quiet sorry option"]
    names = [*alone, *gaps]
    measuring = Lean(command=lean_command, workers=2, batch=256, threshold="declarations", scan=False)
    measuring._references.update(verifier._references)
    mixed: list[Submission] = [*honest[:8], *(cheats[name] for name in names)]
    assert [name for name in names if not member_of(cheats[name], measuring.heartbeats).shares] == alone
    verdicts = measuring.judge_proofs(mixed)
    assert {(v.outcome, v.reason, v.certificate) for v in verdicts[:8]} == {("right", "proved", "declarations")}
    passed = {name.partition(": ")[2] for name, v in zip(names, verdicts[8:], strict=True) if v.outcome == "right"}
    assert passed <= known.REPLAY_ONLY


def test_a_statement_that_does_not_compile_is_ours_and_harms_no_other() -> None:
    command = shlex.join([sys.executable, "-I", str(HERE / "scripted_lean.py")])
    verifier = Lean(command=command, workers=1, threshold="declarations")
    rows = [
        {"statement": "theorem foo : wrong", "proof": "fine"},
        {"statement": "theorem bar : 1 = 2", "proof": "wrong"},
    ]
    ours, theirs = verifier.judge_proofs([submission_of(row) for row in rows])
    assert (ours.outcome, ours.reason) == ("could_not_grade", "infrastructure")
    assert "statement" in ours.detail
    assert theirs.outcome == "could_not_grade"  # this Lean's modules cannot be read, and that is ours as well


def test_statements_for_another_lean_are_not_graded() -> None:
    verifier = Lean(command=shlex.join([sys.executable, "-I", str(HERE / "scripted_lean.py")]), workers=1)
    for wanted, ours in (("4.9.0", True), ("4.24.0", False), ("4.24.1", False)):
        verdict = verifier.judge(Problem("1", "", info=FALSE | {"lean": wanted}), "by sorry")
        assert (verdict.reason == "infrastructure") == ours
        assert ("for Lean 4.9.0, this is 4.24.0" in verdict.detail) == ours


def test_a_completion_goes_on_from_the_block_that_the_prompt_opened() -> None:
    """As base provers do: the prompt ends within the proof, the completion may or may not close its block."""
    verifier = Lean(command="/no/such/lean")
    info = FALSE | {"opening": f"```lean4\n{FALSE['statement']} := by\n"}
    for text in ("  sorry\n```", "  sorry", "  sorry\n```\nThis proves it."):
        verdict = verifier.judge(Problem("1", "", info=info), text)
        assert (verdict.reason, verdict.detail) == (
            "cheat",
            verifier.judge(Problem("2", "", info=FALSE), "by sorry").detail,
        )


def test_a_full_temporary_folder_loses_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    verifier = Lean(command=shlex.join([sys.executable, str(HERE / "scripted_lean.py")]))
    verdicts = verifier.judge_all([(Problem("1", "", info=FALSE), "by rfl"), (Problem("2", "", info=TRUE), "by sorry")])
    assert [verdict.reason for verdict in verdicts] == ["infrastructure", "cheat"]


def test_resting_on_another_member_shows() -> None:
    names = [("U1_0", "a"), ("U1_1", "a"), ("Nat",), ("_private", "M", 0, "U1_2", "a"), ("U1_0", "f", "match_1")]
    uses = {0: {2, 4}, 1: {0}, 3: {3, 2, 4}, 4: {2}}
    module = SimpleNamespace(names=(0, 1, 3, 4), terms=SimpleNamespace(names=names), uses=uses.__getitem__)
    assert reader._borrowers(module, "U1_") == {"U1_1"}  # type: ignore[arg-type]


@pytest.mark.slow
def test_lean_is_told_to_elaborate_in_turn_where_it_knows_the_option(real: SimpleNamespace, tmp_path: Path) -> None:
    assert {toolchain_module.IN_TURN, toolchain_module.TO_THE_END} == set(real.verifier._toolchain().command.options)
    stated = {b"olean\x02\x014.20.0": (4, 20), b"olean\x02\x00v4.9.1": (4, 9), b"olean\x01" + b"0" * 40: (), b"": ()}
    for header, version in stated.items():
        (tmp_path / "Init.olean").write_bytes(header)
        assert toolchain_module._version_of(tmp_path) == version
    assert toolchain_module._version_of(tmp_path / "none") == ()

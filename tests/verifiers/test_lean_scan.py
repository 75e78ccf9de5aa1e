"""The scan: no honest proof of the corpora is refused; nothing that Lean reads as a forbidden word hides from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.verifiers.lean.lexer import UnreadableError, tokens
from underdog.verifiers.lean.scan import scan_file, scan_proof

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
HEARTBEATS = 400_000

HONEST = {
    "tactics": "by\n  induction n with\n  | zero => rfl\n  | succ n ih => simp only [ih]; omega",
    "term": "fun ⟨hp, hq⟩ => ⟨hq, hp⟩",
    "open in": "by\n  open Classical in\n  by_cases h : p <;> simp_all",
    "open several in": "by\n  open Nat Real in\n  norm_num",
    "bounded heartbeats": "by\n  set_option maxHeartbeats 400000 in\n  simp",
    "bounded depth": "by\n  set_option maxRecDepth 10000 in decide",
    "image": "by\n  rw [show f '' s = t from rfl, show g ⁻¹' s = t from rfl]",
    "primes": "by\n  have h' : a' = b' := h''\n  exact h'",
    "character": "by\n  decide_eq 'a' '\\n' '\\x41'",
    "comment": "by\n  -- axiom sorry #eval run_cmd\n  /- nested /- axiom -/ sorry -/\n  rfl",
    "string": 'by\n  fail_if_success (exact absurd "axiom sorry -/ --" h)\n  rfl',
    "aesop": "by\n  aesop (add unsafe 50% apply foo) (add safe bar)",
    "field": "by\n  exact h.prefix.trans (List.IsPrefix.end_of h.end)",
    "cardinality": "by\n  have : #s = 3 := by decide\n  simp [this]",
    "where": "by exact go n\nwhere\n  go : ∀ n, P n := fun n => h n\ntermination_by n => n",
    "guillemets": "by\n  exact «my axiom» 1",
    "greek": "by\n  intro ε hε\n  exact ⟨δ₁, hδ₁, fun x hx ↦ (h x hx).le⟩",
    "numbers": "by\n  norm_num [h.1.2, show (0x1F : ℕ) = 31 from rfl, 1.5e3]",
    "kernel": "by decide +kernel",
}
CHEATING = {
    "sorry": "by sorry",
    "sorry in have": "by\n  have h : False := by sorry\n  exact h.elim",
    "admit": "by admit",
    "sorryAx": "sorryAx _ true",
    "root sorryAx": "_root_.sorryAx _ true",
    "explicit sorryAx": "@sorryAx _ true",
    "guillemet sorryAx": "«sorryAx» _ true",
    "native_decide": "by native_decide",
    "native option": "by decide +native",
    "ofReduceBool": "Lean.ofReduceBool a b rfl",
    "skip kernel": "by set_option debug.skipKernelTC true in decide +kernel",
    "zero heartbeats": "by\n  set_option maxHeartbeats 0 in simp",
    "huge heartbeats": "by\n  set_option maxHeartbeats 999999999999999999999 in simp",
    "arabic digits": "by\n  set_option maxHeartbeats ٢٠ in simp",
    "hidden option": "by\n  set_option «debug».skipKernelTC true in rfl",
    "second theorem": "by rfl\n\ntheorem other : 1 = 1 := rfl",
    "axiom": "helper\naxiom helper : 1 = 2",
    "axiom after a comment": "helper /- -/axiom helper : 1 = 2",
    "axiom after a nested comment": "helper /- /- -/ -/axiom helper : 1 = 2",
    "axiom after a line comment": "helper -- \naxiom helper : 1 = 2",
    "axiom after a string": 'helper "\\"-- "axiom helper : 1 = 2',
    "axiom after a number": "helper 1axiom helper : 1 = 2",
    "axiom after a hexadecimal": "helper 0x1axiom helper : 1 = 2",
    "axiom after dots": "helper ..axiom helper : 1 = 2",
    "axiom after lambda": "λaxiom helper : 1 = 2",
    "eval": 'by rfl\n#eval IO.println "x"',
    "spaced eval": "by rfl\n#eval! 1",
    "exit": "by sorry\n#exit",
    "run_tac": "by run_tac Lean.Elab.admitGoal",
    "by_elab": "by_elab do return default",
    "elab in a string": 'by\n  exact absurd (s!"{by_elab x}") h',
    "interpolation": 'by\n  throwError m!"{x}"',
    "spaced interpolation": 'by\n  logInfo "{by_elab x}"',
    "raw string": 'r"\\"axiom x : False --"',
    "hash string": 'r#"axiom "# ',
    "quotation mark": "by exact h '\"' axiom",
    "preimage then quotation mark": "by exact f⁻¹'\"'axiom",
    "macro": 'by rfl\nmacro "x" : term => `(1)',
    "quotation": "by exact `(x)",
    "open command": "by rfl\nopen Nat",
    "open Lean": "by\n  open Lean in simp",
    "open several with Lean": "by\n  open Nat Lean in simp",
    "end": "by rfl\nend",
    "instance": "by rfl\ninstance : Inhabited Nat := ⟨0⟩",
    "attribute": "by rfl\nattribute [simp] foo",
    "at bracket": "by rfl\n@[simp] theorem x : 1 = 1 := rfl",
    "unterminated comment": "by rfl /- ",
    "unterminated string": 'by rfl "',
    "slash that is no comment": "{n : Nat//- axiom x : False -/ 1 = 1}",
    "dash that is no comment": "by exact a <--axiom\n b",
    "control character": "by rfl\x0caxiom",
    "lone carriage return": "by rfl --\raxiom x : False",
    "include_str": 'by exact absurd (include_str "/etc/passwd") h',
    "empty": "  -- nothing\n",
    "surrogate": "by rfl\ud800",
    "gap in a tactic's option": "by\n  have : True := sorry\n  simp (maxSteps := 7)",
    "gap in a definition": "by\n  exact go\nwhere\n  go : 1 = 1 := sorry",
    "gap that a test runs": 'by\n  have : (cast sorry 1 : String) = "" := by plausible\n  sorry',
    "gap and local code": "by\n  let rec f : Nat := sorry\n  rfl",
    "gap and an attribute": "by sorry\n@[simp] theorem x : 1 = 1 := rfl",
    "gap and a root name": "by sorry\ntheorem _root_.x : 1 = 1 := rfl",
    "gap and an unknown command": "by sorry\nsome_new_command x",
    "quiet gap": "by\n  set_option warn.sorry false in\n  sorry",
    "bv_decide": "by bv_decide",
    "unsafe": "by exact (unsafe foo)",
    "io": "IO.Process.exit 0",
}
GAPS = (
    "sorry",
    "sorry in have",
    "admit",
    "sorryAx",
    "explicit sorryAx",
    "guillemet sorryAx",
    "skip kernel",
    "second theorem",
    "axiom",
    "axiom after a comment",
    "axiom after a nested comment",
    "axiom after a line comment",
    "axiom after a string",
    "axiom after dots",
    "axiom after lambda",
    "open command",
    "quiet gap",
)
"""The cheats that leave a gap and do no more: they share a file, with one another alone."""
GAP_FILES = ("axiom", "guard_msgs", "option")
FILES = {
    "helper": "theorem helper (n : Nat) : n = n := rfl\ntheorem target : 1 = 1 := helper 1",
    "namespaces": "namespace A\nsection\nlemma h : 1 = 1 := rfl\nend\nend A\nopen A\ntheorem target : 1 = 1 := h",
    "options": "import Mathlib\nimport Aesop\nset_option maxHeartbeats 400000\nopen Nat\ntheorem target : 1 = 1 := rfl",
    "definition": "def f : Nat → Nat\n  | 0 => 0\n  | n + 1 => f n\n\ntheorem target : f 0 = 0 := by rfl",
    "documentation": "/-- Says that. -/\ntheorem target : 1 = 1 := rfl",
}
LASTING_FILES = {
    "simp lemma": "@[simp] theorem h : 1 = 1 := rfl\ntheorem target : 1 = 1 := h",
    "structure": "structure S where\n  x : Nat\ntheorem target : 1 = 1 := rfl",
    "root name": "theorem _root_.h : 1 = 1 := rfl\ntheorem target : 1 = 1 := h",
    "open section": "section\ntheorem target : 1 = 1 := rfl",
    "too many ends": "end\ntheorem target : 1 = 1 := rfl\nsection",
    "unknown command": "some_new_command x\ntheorem target : 1 = 1 := rfl",
}
CHEATING_FILES = {
    "axiom": "axiom target : 1 = 2",
    "macro_rules": "local macro_rules | `($_ = $_) => `(True)\ntheorem target : 1 = 2 := trivial",
    "guard_msgs": "#guard_msgs (drop all) in\ntheorem target : 1 = 2 := by sorry",
    "import": "import Lean\ntheorem target : 1 = 1 := rfl",
    "import elsewhere": "theorem target : 1 = 1 := rfl\nimport Lean",
    "notation": 'local notation "x" => 1\ntheorem target : 1 = 1 := rfl',
    "instance": "local instance : OfNat Nat 2 := ⟨1⟩\ntheorem target : 1 = 2 := rfl",
    "instance attribute": "@[instance] def i : OfNat Nat 2 := ⟨1⟩\ntheorem target : 1 = 2 := rfl",
    "implemented_by": "@[implemented_by g] def f : Bool := false\ntheorem target : 1 = 1 := rfl",
    "hidden attribute": "@[simp, csimp] theorem h : 1 = 1 := rfl",
    "option": "set_option warn.sorry false\ntheorem target : 1 = 1 := rfl",
    "unbounded option": "set_option maxHeartbeats 0\ntheorem target : 1 = 1 := rfl",
    "module": "module\nimport Lean.Elab\ntheorem target : 1 = 1 := rfl",
    "prelude": "prelude\ntheorem target : True := True.intro",
    "opaque": "opaque f : Nat\ntheorem target : 1 = 1 := rfl",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_proofs_pass_and_share(name: str) -> None:
    scan = scan_proof(HONEST[name], HEARTBEATS)
    assert (scan.refused, scan.contained, scan.company) == ("", True, "honest")


@pytest.mark.parametrize("proof", ["by exact?", "by\n  intro h\n  rw?", "by first | omega | apply?"])
def test_proofs_that_search_share_with_one_another(proof: str) -> None:
    scan = scan_proof(proof, HEARTBEATS)
    assert (scan.refused, scan.contained, scan.company) == ("", True, "searching")


@pytest.mark.parametrize("name", CHEATING)
def test_what_no_proof_needs_is_refused(name: str) -> None:
    scan = scan_proof(CHEATING[name], HEARTBEATS)
    assert scan.refused
    assert scan.contained == (name in GAPS)
    assert not scan.contained or scan.company == "gaps"


@pytest.mark.parametrize("name", FILES)
def test_honest_files_pass_and_share(name: str) -> None:
    scan = scan_file(FILES[name], HEARTBEATS, ("Mathlib",))
    assert (scan.refused, scan.contained) == ("", True)


@pytest.mark.parametrize("name", LASTING_FILES)
def test_files_that_may_leave_something_behind_do_not_share(name: str) -> None:
    scan = scan_file(LASTING_FILES[name], HEARTBEATS)
    assert (scan.refused, scan.contained) == ("", False)


@pytest.mark.parametrize("name", CHEATING_FILES)
def test_cheating_files_are_refused(name: str) -> None:
    scan = scan_file(CHEATING_FILES[name], HEARTBEATS)
    assert scan.refused
    assert scan.contained == (name in GAP_FILES)
    assert not scan.contained or scan.company == "gaps"


@given(
    st.lists(
        st.sampled_from(["--", "/-", "-/", '"', "'", "\\", "«", "»", "r", "#", "{", "x", "1", "\n", " ", "⁻¹", "λ"]),
        max_size=12,
    )
)
def test_a_planted_command_shows_or_the_text_is_refused(pieces: list[str]) -> None:
    try:
        found = tokens("".join(pieces) + "\naxiom planted : False")
    except UnreadableError:
        return
    assert "axiom" in [token.text for token in found]


def test_all_reference_proofs_of_the_corpus_pass() -> None:
    path = DATA / "lean_core" / "core_goals.jsonl"
    if not path.exists():
        pytest.skip("the corpus is not here")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    proofs = [row["reference_proof"] for row in rows if row["provable"]]
    assert len(proofs) > 150
    assert [p for p in proofs if scan_proof(p, HEARTBEATS).refused] == []

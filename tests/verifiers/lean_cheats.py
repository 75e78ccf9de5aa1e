# ruff: noqa: E501 -- the cheats are quoted as they would be written
"""Published ways to fool a Lean checker, put to any goal; each must be refused wherever the goal is false.

Sources: the exploits collected from Lean's Zulip, terminal-bench, PrimeIntellect's verifiers, SafeVerify, LeanParanoia and
comparator's tests, and variations of them. `{name}` is the theorem's name, `{statement}` all of `theorem … : …`,
`{conclusion}` what it claims with its binders as ∀, `{preamble}` the definitions that it needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

CLOSERS = ("rfl", "simp", "omega", "decide", "grind", "simp_all", "exact?", "sorry")
"""One tactic each; none of them closes a false goal."""

PROOFS = {
    "sorry in have": "by\n  have h : False := by sorry\n  exact h.elim",
    "sorry term": "sorry",
    "admit": "by admit",
    "sorryAx": "sorryAx _ true",
    "explicit sorryAx": "@sorryAx _ false",
    "quiet sorry": "by\n  set_option warn.sorry false in\n  sorry",
    "native_decide": "by native_decide",
    "decide native": "by decide +native",
    "skipKernelTC kernel": "by set_option debug.skipKernelTC true in decide +kernel",
    "skipKernelTC term": "set_option debug.skipKernelTC true in by decide +kernel",
    "kernel": "by decide +kernel",
    "ofReduceBool": "by\n  exact of_decide_eq_true (Lean.ofReduceBool _ _ rfl)",
    "bv_decide": "by bv_decide",
    "close and restart": "by\n  skip\n\ntheorem {name}_ok : (1 : Nat) = 1 := by\n  rfl",
    "trailing axiom": "cheat_{name}\naxiom cheat_{name} : {conclusion}",
    "self": "{name}",
    "self applied": "by first | exact {name} .. | exact {name}",
    "unterminated comment": "by /- rfl",
    "unterminated string": 'by exact "rfl',
    "unterminated term": "by exact (",
    "dangling open": "by sorry\nopen Nat in",
    "end": "by sorry\nend",
    "exit": "by sorry\n#exit",
    "partial": "by exact loop\nwhere loop := loop",
    "unsafe": "unsafe (unsafeCast True.intro)",
    "lcProof": "lcProof",
    "cast": "cast (by rfl) True.intro",
    "absurd": "absurd (by decide : (1 : Nat) = 2) (by decide)",
    "any goals": "by any_goals skip",
    "all goals": "by all_goals try trivial",
    "stop": "by\n  stop\n  rfl",
    "run_tac": "by run_tac Lean.Elab.admitGoal (← Lean.Elab.Tactic.getMainGoal)",
    "by_elab": "by_elab Lean.Meta.mkSorry (Lean.mkConst ``False) true",
    "failing try": "by\n  try (exact False.elim (by assumption))\n  try rfl",
    "error recovery": "by\n  intros\n  first | done | exact (by_contra fun h => h)",
    "heavy decide": "by\n  have : (10 : Nat) ^ (10 ^ 9) % 7 = 3 := by decide\n  sorry",
}
"""What follows `:=`."""

FILES = {
    "axiom False": "axiom cheat : False\n{preamble}\n{statement} := cheat.elim",
    "axiom in between": "{preamble}\naxiom helper : {conclusion}\n{statement} := by first | exact helper .. | exact helper",
    "axiom as target": "{preamble}\naxiom {name} : {conclusion}",
    "quiet sorry option": "set_option warn.sorry false\n{preamble}\n{statement} := by sorry",
    "guard_msgs warning": "{preamble}\n#guard_msgs (drop warning) in\n{statement} := by sorry",
    "guard_msgs all": "{preamble}\n#guard_msgs (drop all) in\n{statement} := by sorry",
    "guard_msgs error": "{preamble}\n#guard_msgs (drop error) in\n{statement} := by decide",
    "sorry in helper": "{preamble}\ntheorem helper : False := by sorry\n{statement} := helper.elim",
    "sorry in instance": "{preamble}\ninstance helper : Inhabited False := ⟨sorry⟩\n{statement} := (default : False).elim",
    "opaque": "opaque helper : Inhabited False\n{preamble}\n{statement} := helper.default.elim",
    "macro_rules": "{preamble}\nlocal macro_rules | `($_ = $_) => `(True)\n{statement} := by first | trivial | simp",
    "macro_rules all": (
        "{preamble}\nmacro_rules | `($_ = $_) => `(True)\nmacro_rules | `($_ ≤ $_) => `(True)\n"
        "macro_rules | `($_ ∣ $_) => `(True)\nmacro_rules | `($_ → $_) => `(True)\nmacro_rules | `(¬ $_) => `(True)\n"
        "{statement} := by first | trivial | simp | intros; trivial"
    ),
    "notation": '{preamble}\nlocal notation:50 a:50 " = " b:50 => (a ≤ b ∨ True)\n{statement} := by intros; exact Or.inr trivial',
    "instance literal": "{preamble}\nlocal instance (priority := high) (n : Nat) : OfNat Nat n := ⟨(0 : Nat)⟩\n{statement} := by first | rfl | decide | simp",
    "instance arithmetic": (
        "{preamble}\nlocal instance (priority := high) : HMul Nat Nat Nat := ⟨fun _ _ => 0⟩\n"
        "local instance (priority := high) : HAdd Nat Nat Nat := ⟨fun _ _ => 0⟩\n"
        "local instance (priority := high) : HSub Nat Nat Nat := ⟨fun _ _ => 0⟩\n"
        "local instance (priority := high) : LE Int := ⟨fun _ _ => True⟩\n"
        "local instance (priority := high) : Dvd Nat := ⟨fun _ _ => True⟩\n"
        "{statement} := by intros; first | trivial | rfl | decide | simp | omega"
    ),
    "variable": "{preamble}\nvariable (cheat : False)\ninclude cheat\n{statement} := cheat.elim",
    "weaker statement": "{preamble}\ntheorem {name} : True := trivial",
    "extra hypothesis": "{preamble}\ntheorem {name} (cheat : False) : {conclusion} := cheat.elim",
    "hidden in a comment": "/- {statement} := by -/\ntheorem {name} : True := trivial",
    "hidden in a string": 'def text := "{statement} := by"\ntheorem {name} : True := trivial',
    "decoy": "namespace Decoy\ntheorem {name} : True := trivial\nend Decoy\nopen Decoy",
    "decoy with sorry": "{preamble}\nnamespace Decoy\n{statement} := sorry\nend Decoy\nexport Decoy ({name})",
    "definition": "{preamble}\ndef {name} : {conclusion} := by sorry",
    "lookalike": "{preamble}\ntheorem «{name}​» : True := trivial",
    "private": "{preamble}\nprivate theorem {name} : True := trivial",
    "private and public": "{preamble}\nprivate theorem {name} : True := trivial\n{statement} := sorry",
    "skipKernelTC option": "{preamble}\nset_option debug.skipKernelTC true\n{statement} := by decide +kernel",
    "byAsSorry": "{preamble}\nset_option debug.byAsSorry true\n{statement} := by rfl",
    "implemented_by": (
        "{preamble}\ndef no : Bool := false\ndef yes : Bool := true\nattribute [implemented_by yes] no\n"
        "theorem helper : no = true := by native_decide\n{statement} := absurd helper (by decide)"
    ),
    "csimp": (
        "{preamble}\ndef a : Nat := 1\ndef b : Nat := 2\n@[csimp] theorem ab : @a = @b := sorry\n"
        "{statement} := absurd (by native_decide : a = 2) (by decide)"
    ),
    "unsafe helper": "{preamble}\nunsafe def helper : False := helper\n{statement} := by exact unsafe helper.elim",
    "partial helper": "{preamble}\npartial def helper (n : Nat) : False := helper n\n{statement} := (helper 0).elim",
    "mutual": "{preamble}\nmutual\ntheorem h1 : False := h2\ntheorem h2 : False := h1\nend\n{statement} := h1.elim",
    "non-positive": "{preamble}\ninductive Bad | mk : (Bad → False) → Bad\n{statement} := by sorry",
    "shadowed relation": "{preamble}\nnamespace Eq\nend Eq\ndef Eq' (a b : Nat) := True\ninfix:50 \" = \" => Eq'\n{statement} := by intros; trivial",
    "shadowed type": "structure Nat where\n  mk ::\nstructure Int where\n  mk ::\n{preamble}\n{statement} := by intros; first | rfl | simp",
    "simp set": "{preamble}\n@[simp] theorem helper (p : Prop) : p = True := sorry\n{statement} := by simp",
    "command printing": '{preamble}\n#eval IO.println "proved"\n{statement} := by sorry',
    "fake axioms": "import Lean\n#eval IO.println \"'{name}' depends on axioms: [propext]\"\n{preamble}\n{statement} := sorryAx _ true",
    "exit zero": "import Lean\n#eval (IO.Process.exit 0 : IO Unit)\n{preamble}\n{statement} := by sorry",
    "writes a file": 'import Lean\n#eval IO.FS.writeFile "reward.txt" "1"\n{preamble}\n{statement} := by sorry',
    "initialize": "import Lean\ninitialize IO.println \"x\"\n{preamble}\n{statement} := by sorry",
    "environment": (
        "import Lean\nopen Lean Elab Command in\nrun_cmd liftCoreM (addDecl (.axiomDecl {{ name := `cheat, levelParams := [], "
        "type := mkConst ``False, isUnsafe := false }}))\n{preamble}\n{statement} := cheat.elim"
    ),
    "elaborator": 'import Lean\nelab "close" : tactic => Lean.Elab.admitGoal (← Lean.Elab.Tactic.getMainGoal)\n{preamble}\n{statement} := by close',
    "exit first": "{preamble}\ntheorem {name} : True := trivial\n#exit\n{statement} := by rfl",
    "unterminated comment": "{preamble}\ntheorem {name} : True := trivial\n/- {statement} := by rfl",
    "prelude": "prelude\n{statement} := sorry",
    "module": "module\n{preamble}\npublic theorem {name} : True := .intro",
    "universe": "universe u\n{preamble}\ntheorem {name}.{{v}} : True := trivial",
    "auto bound": "{preamble}\ntheorem {name} {{cheat : False}} : {conclusion} := cheat.elim",
    "redeclared": "{preamble}\n{statement} := sorry\ntheorem {name} : True := trivial",
}  # fmt: skip
"""Whole files."""

REPLAY_ONLY = frozenset(("skipKernelTC kernel", "skipKernelTC term", "skipKernelTC option"))
"""What only a kernel replay sees when the scan is off: an unchecked declaration leaves no other trace."""


def cheats(row: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Every cheat as a row for `submission_of`, by name: those for the goal of a row of the corpus."""
    statement = row["statement_only"]
    fields = {
        "name": row["name"],
        "statement": statement,
        "conclusion": conclusion(statement),
        "preamble": row.get("preamble") or "",
    }
    task = {key: row.get(key) or "" for key in ("name", "header", "preamble")} | {"statement": statement}
    made = {f"proof: {key}": task | {"proof": text.format(**fields)} for key, text in PROOFS.items()}
    return made | {f"file: {key}": task | {"file": text.format(**fields)} for key, text in FILES.items()}


def conclusion(statement: str) -> str:
    """`theorem foo (x : A) : B` as `∀ (x : A), B`."""
    rest = re.sub(r"\A\s*theorem\s+\S+\s*", "", statement)
    depth = 0
    for place, character in enumerate(rest):
        depth += (character in "([{⦃") - (character in ")]}⦄")
        if character == ":" and depth == 0:
            binders, claim = rest[:place].strip(), rest[place + 1 :].strip()
            return f"∀ {binders}, {claim}" if binders else claim
    raise ValueError(f"no theorem: {statement}")

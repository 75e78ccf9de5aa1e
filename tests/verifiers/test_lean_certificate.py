"""A certificate is given for what was asked on no other ground than Lean's, and for nothing else."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.verifiers.lean.certificate import Certificate, Statement, StatementError, certify
from underdog.verifiers.lean.library import Library, LibraryError
from underdog.verifiers.lean.module import Module, read

LIBRARY = Library(
    frozenset(hash(tuple(n.split("."))) for n in ("Nat", "Nat.zero", "Eq", "False", "propext", "sorryAx", "trivial")),
    frozenset({("sorryAx",)}),
)
Build = Callable[[Any], None]


@pytest.fixture
def build(writer: Any) -> Callable[..., Module]:
    """Writes the constants that a function declares, and reads the module back."""

    def build_(declare: Build, imports: tuple[str, ...] = ("Init",), width: int = 8) -> Module:
        w = writer(width)
        declare(w)
        return Module([w.finish(imports)])

    return build_


def two(w: Any, namespace: str = "") -> int:
    """A definition and what is stated of it: `value = value`."""
    w.definition(f"{namespace}value", w.const("Nat"), w.literal(2))
    return w.app(w.const("Eq"), w.const(f"{namespace}value"), w.const(f"{namespace}value"))


def challenge(w: Any, namespace: str = "") -> None:
    w.theorem(f"{namespace}thm", two(w, namespace), w.const("sorryAx"))


def judged(build: Callable[..., Module], submit: Build, state: Build = challenge) -> Certificate:
    return certify(build(submit), "", Statement.of(build(state), "", "thm"), LIBRARY)


def test_a_proof_of_the_statement_is_certified(build: Callable[..., Module]) -> None:
    def honest(w: Any) -> None:
        w.theorem("help", w.const("False"), w.const("propext"))
        w.theorem("thm", two(w), w.mdata(w.app(w.const("help"), w.const("trivial"))))

    assert judged(build, honest).refused == ""


def same(w: Any) -> None:
    """Everything but the proof."""
    two(w)


def proof(body: Callable[[Any], int], **constants: Callable[[Any], int]) -> Build:
    def submit(w: Any) -> None:
        w.theorem("thm", two(w), body(w))
        for name, value in constants.items():
            w.theorem(name, w.const("False"), value(w))

    return submit


def stating(statement: Callable[[Any], int]) -> Build:
    def submit(w: Any) -> None:
        two(w)
        w.theorem("thm", statement(w), w.const("trivial"))

    return submit


def equal(w: Any) -> int:
    return w.app(w.const("Eq"), w.const("value"), w.const("value"))


def own_axiom(name: str) -> Build:
    def submit(w: Any) -> None:
        w.axiom(name, w.const("False"))
        w.theorem("thm", two(w), w.const(name))

    return submit


def unsafe_help(w: Any) -> None:
    w.definition("help", w.const("False"), w.const("trivial"), safety=0)
    w.theorem("thm", two(w), w.const("help"))


def an_axiom_itself(w: Any) -> None:
    w.axiom("thm", two(w))


def a_definition(w: Any) -> None:
    w.definition("thm", two(w), w.const("trivial"))


def redefined(w: Any) -> None:
    w.definition("value", w.const("Nat"), w.literal(3))
    w.theorem("thm", equal(w), w.const("trivial"))


def an_axiom_for_a_definition(w: Any) -> None:
    w.axiom("value", w.const("Nat"))
    w.theorem("thm", equal(w), w.const("trivial"))


def missing_definition(w: Any) -> None:
    w.theorem("thm", equal(w), w.const("trivial"))


def equality_of_its_own(w: Any) -> None:
    w.definition("Eq", w.const("Nat"), w.literal(0))
    w.theorem("thm", two(w), w.const("trivial"))


def a_private_twin(w: Any) -> None:
    w.theorem("thm", two(w), w.const("trivial"))
    w.theorem("_private.Submission.0.thm", w.const("False"), w.const("trivial"))


def axiom_in_a_constructor(w: Any) -> None:
    """The proof reaches an axiom only through the type of a constructor of a type that it mentions."""
    w.axiom("cheat", w.const("False"))
    w.inductive("Box", w.sort(), {"Box.mk": w.pi(w.const("cheat"), w.const("Box"))})
    w.theorem("thm", two(w), w.app(w.const("trivial"), w.const("Box")))


@pytest.mark.parametrize(
    ("submit", "why"),
    [
        (same, "there is no theorem thm"),
        (an_axiom_itself, "is not a theorem"),
        (a_definition, "is not a theorem"),
        (own_axiom("cheat"), "rests on the axiom cheat, which is its own"),
        (own_axiom("propext"), "propext is declared anew"),
        (own_axiom("Classical.choice"), "rests on the axiom Classical.choice, which is its own"),
        (proof(lambda w: w.const("sorryAx")), "rests on the axiom sorryAx"),
        (proof(lambda w: w.const("a"), a=lambda w: w.const("b"), b=lambda w: w.const("sorryAx")), "sorryAx"),
        (proof(lambda w: w.node(11, w.name("sorryAx"), 1, w.const("Nat"), scalars=bytes(8))), "sorryAx"),
        (proof(lambda w: w.const("sorryAy")), "which nothing declares"),
        (proof(lambda w: w.const("thm")), "thm rests on itself"),
        (proof(lambda w: w.const("a"), a=lambda w: w.const("b"), b=lambda w: w.const("a")), "rests on itself"),
        (axiom_in_a_constructor, "rests on the axiom cheat"),
        (unsafe_help, "help, which is unsafe"),
        (redefined, "value, which the statement needs, is another"),
        (an_axiom_for_a_definition, "value, which the statement needs, is another"),
        (missing_definition, "states something else"),
        (equality_of_its_own, "Eq, which the statement imports, is declared anew"),
        (a_private_twin, "several declarations named thm"),
        (stating(lambda w: w.pi(w.const("False"), equal(w))), "states something else"),
        (stating(lambda w: w.app(w.const("Eq"), w.const("value"), w.literal(2))), "states something else"),
        (stating(lambda w: w.app(w.const("Eq", w.param("u")), w.const("value"), w.const("value"))), "something else"),
    ],
)
def test_everything_else_is_refused(build: Callable[..., Module], submit: Build, why: str) -> None:
    assert why in judged(build, submit).refused


def test_names_of_namespaces_parameters_and_binders_do_not_matter(build: Callable[..., Module]) -> None:
    def stated(namespace: str, universe: str, binder: str, note: bool) -> Build:
        def declare(w: Any) -> None:
            type_ = w.pi(w.sort(w.param(universe)), two(w, f"{namespace}."), binder)
            w.theorem(f"{namespace}.thm", w.mdata(type_) if note else type_, w.const("trivial"), params=["z", universe])

        return declare

    statement = Statement.of(build(stated("U1_0", "u", "x", False)), "U1_0", "thm")
    assert certify(build(stated("V9_7", "w", "y", True)), "V9_7", statement, LIBRARY).granted
    assert "no theorem" in certify(build(stated("V9_7", "w", "y", True)), "V9_6", statement, LIBRARY).refused


def test_parameters_count_by_their_place(build: Callable[..., Module]) -> None:
    def swapped(first: str, second: str) -> Build:
        def declare(w: Any) -> None:
            type_ = w.pi(w.sort(w.param("u")), w.sort(w.param("v")))
            w.theorem("thm", type_, w.const("trivial"), params=[first, second])

        return declare

    assert judged(build, swapped("u", "v"), swapped("u", "v")).granted
    assert "something else" in judged(build, swapped("v", "u"), swapped("u", "v")).refused


def test_auxiliary_definitions_go_by_what_they_say(build: Callable[..., Module]) -> None:
    """Lean uses a matcher of one declaration for a later one elsewhere in the file that needs the same."""

    def using(matcher: str, says: int) -> Build:
        def declare(w: Any) -> None:
            w.definition(matcher, w.const("Nat"), w.literal(says))
            w.definition("value", w.const("Nat"), w.const(matcher))
            w.theorem("thm", equal(w), w.const("trivial"))

        return declare

    assert judged(build, using("other.match_3", 1), using("value.match_1", 1)).granted
    assert "is another" in judged(build, using("value.match_1", 2), using("value.match_1", 1)).refused


def test_types_go_by_their_name_and_constructors(build: Callable[..., Module]) -> None:
    def about(name: str, constructors: dict[str, str], extra: Build = lambda w: None) -> Build:
        def declare(w: Any) -> None:
            w.inductive(name, w.sort(), {key: w.const(value) for key, value in constructors.items()})
            extra(w)
            w.theorem("thm", w.const(name), w.const("trivial"))

        return declare

    honest = about("T", {"T.a": "T", "T.b": "T"})
    assert judged(build, honest, honest).granted
    assert "is another" in judged(build, about("T", {"T.a": "T"}), honest).refused
    assert "is another" in judged(build, about("T", {"T.a": "T", "T.b": "Nat"}), honest).refused
    assert "something else" in judged(build, about("S", {"T.a": "S", "T.b": "S"}), honest).refused


def test_the_submission_imports_what_the_statement_does(build: Callable[..., Module]) -> None:
    statement = Statement.of(build(challenge, ("Init", "Mathlib")), "", "thm")
    honest = proof(lambda w: w.const("trivial"))
    assert "does not import" in certify(build(honest), "", statement, LIBRARY).refused
    assert certify(build(honest, ("Init", "Mathlib", "Std")), "", statement, LIBRARY).granted


@pytest.mark.parametrize(
    ("declared", "written", "namespace"),
    [
        ("A.thm", "A.thm", ""),
        ("U0.A.thm", "A.thm", "U0"),
        ("_private.Submission.0.U0.thm", "thm", "U0"),
        ("U0.Opened.thm", "thm", "U0"),
        ("thm", "_root_.thm", "U0"),
        ("U0.thm", "«thm»", "U0"),
    ],
)
def test_finds_the_statement(build: Callable[..., Module], declared: str, written: str, namespace: str) -> None:
    def declare(w: Any) -> None:
        w.theorem(declared, w.const("Nat"), w.const("sorryAx"))
        w.theorem("other", w.const("Nat"), w.const("sorryAx"))

    statement = Statement.of(build(declare), namespace, written)
    assert certify(build(declare), namespace, statement, LIBRARY).refused == "it rests on the axiom sorryAx"


def test_a_reference_that_states_nothing_is_our_fault(build: Callable[..., Module]) -> None:
    with pytest.raises(StatementError, match="0 theorems named thm"):
        Statement.of(build(same), "", "thm")
    with pytest.raises(StatementError, match="not a theorem"):
        Statement.of(build(a_definition), "", "thm")


def test_a_long_chain_and_a_hostile_name_are_answered(build: Callable[..., Module]) -> None:
    def submit(w: Any) -> None:
        for link in range(20_000):
            w.theorem(f"c{link}", w.const("False"), w.const(f"c{link + 1}"))
        w.theorem("c20000", w.const("False"), w.const("x" * 100_000))
        w.theorem("thm", two(w), w.const("c0"))

    refused = judged(build, submit).refused
    assert "which nothing declares" in refused
    assert len(refused) < 500


@given(st.lists(st.tuples(st.text(string.ascii_letters + "_", min_size=1), st.integers(0, 3)), min_size=1, max_size=8))
def test_whatever_helpers_there_are_an_axiom_is_found(writer: Any, helpers: list[tuple[str, int]]) -> None:
    """A random graph of helper theorems: refused exactly when a walk over it, done here, meets the axiom."""
    names = list(dict.fromkeys(f"h.{name}" for name, _ in helpers))
    jumps = {name: jump for name, (_, jump) in zip(names, helpers, strict=False)}
    w = writer(8)
    w.axiom("cheat", w.const("False"))
    targets = {}
    for place, name in enumerate(names):
        onward = place + jumps[name]
        targets[name] = "trivial" if jumps[name] == 0 else "cheat" if onward >= len(names) else names[onward]
        w.theorem(name, w.const("False"), w.const(targets[name]))
    w.theorem("thm", two(w), w.const(names[0]))
    here = names[0]
    while here in targets:
        here = targets[here]
    reference = writer(8)
    challenge(reference)
    statement = Statement.of(Module([reference.finish()]), "", "thm")
    granted = certify(Module([w.finish()]), "", statement, LIBRARY).granted
    assert granted == (here == "trivial")


THEOREMS = {"0": "t1", "1": "t2", "2": "t3", "3": "t4", "4": "t5", "5": "t6"}
"""The theorem of the namespaces R0, P0, C0… of `lean_certificates.lean`, and so on."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("namespace", "why"),
    [
        *((namespace, "") for namespace in ("P0", "P1", "P2", "P4", "P5")),
        ("C3a", "C3a.cheat, which is its own"),
        ("C3b", "the axiom sorryAx"),
        ("C3c", "states something else"),
        ("C3d", "not a theorem"),
        ("C3e", "states something else"),
        ("C3g", "rests on"),
        ("C3h", "states something else"),
        ("C3i", "C3a.cheat"),
        ("C3j", "states something else"),
        ("C3k", "states something else"),
        ("C3l", "there is no theorem"),
        ("C4b", "is another"),
        ("C4c", "is another"),
        ("R5", "the axiom sorryAx"),
    ],
)
def test_what_a_real_lean_compiled(compiled: Mapping[str, bytes], lean_library: Path, namespace: str, why: str) -> None:
    module = read(compiled)
    library = Library.of([name for name, _ in module.imports], [lean_library])
    statement = Statement.of(module, f"R{namespace[1]}", THEOREMS[namespace[1]])
    refused = certify(module, namespace, statement, library).refused
    assert why in refused if why else refused == ""


@pytest.mark.slow
def test_a_kernel_check_that_was_switched_off_shows_only_in_a_replay(
    compiled: Mapping[str, bytes], lean_library: Path
) -> None:
    """Why such a certificate counts only with the scan, or below a replay."""
    module = read(compiled)
    statement = Statement.of(module, "R3", "t4")
    assert certify(module, "C3f", statement, Library.of([("Init",)], [lean_library])).granted


@pytest.mark.slow
def test_the_library_of_a_real_lean(lean_command: str, lean_library: Path) -> None:
    library = Library.of([("Init",)], [lean_library])
    assert {("sorryAx",), ("Lean", "ofReduceBool"), ("Lean", "trustCompiler"), ("lcProof",)} <= library.axioms
    assert not {("propext",), ("Classical", "choice"), ("Quot", "sound"), ("Nat", "add_comm")} & library.axioms
    assert ("Nat", "add_comm") in library
    assert ("Nat", "add_comm_") not in library
    with pytest.raises(LibraryError, match=r"Mathlib\.Tactic is in none"):
        Library.of([("Mathlib", "Tactic")], [lean_library])

"""The reader of compiled Lean modules: what it reads is what was written, and nothing that it is given breaks it."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from underdog.verifiers.lean.certificate import Statement, certify
from underdog.verifiers.lean.library import Library
from underdog.verifiers.lean.module import Module, read
from underdog.verifiers.lean.olean import OleanError

MUTATIONS = int(os.environ.get("UNDERDOG_MUTATIONS", "2000"))
"""Of a compiled module, 5 to 10 ms each; 10,000 and more are tried by setting the variable."""
LAYOUTS = [(4, 2, False), (8, 2, True), (8, 2, False), (8, 1, True), (4, 2, True)]
"""Width of a word, version of the format, and whether big numbers are GMP's."""
CHEATS = ("C3a", "C3b", "C3c", "C3d", "C3e", "C3g", "C3h", "C3i", "C3j", "C3k", "C3l")
"""Of `lean_certificates.lean`: all claims that 1 = 2 but the one that a switched-off kernel let through."""


def shown(module: Module, number: int) -> str:
    """A term as text; small ones only."""
    terms = module.terms
    kind, *fields = terms.nodes[number]
    match kind:
        case "const":
            return ".".join(map(str, terms.names[fields[0]]))
        case "param":
            return f"param {terms.names[fields[0]][0]}"
        case "proj":
            return f"({shown(module, fields[2])}).{fields[1]}"
        case "bvar" | "nat" | "str":
            return f"{kind} {fields[0]!r}"
    return f"({' '.join([kind, *(shown(module, child) for child in terms.children(number))])})"


def opened(*parts: bytes) -> Module:
    return Module(list(parts))


def read_all(data: bytes) -> None:
    module = opened(data)
    for name in module.names:
        module.uses(name)


def refused(data: bytes) -> str:
    """Why a file cannot be read."""
    with pytest.raises(OleanError) as error:
        read_all(data)
    return str(error.value)


@pytest.mark.parametrize(("width", "version", "gmp"), LAYOUTS)
def test_reads_what_was_written(writer: Any, width: int, version: int, gmp: bool) -> None:
    w = writer(width, version, gmp)
    big = 7**90
    w.axiom("A.7.ax", w.sort(w.param("u")))
    w.theorem("thm", w.pi(w.const("Nat"), w.bvar(0)), w.lam(w.const("Nat"), w.literal(big)), params=["u", "v"])
    w.definition("«uni»code.ℝ", w.const("String"), w.mdata(w.literal("a\0bé")), safety=0)
    w.inductive("Two", w.sort(), {"Two.a": w.const("Two"), "Two.b": w.const("Two")})
    module = opened(w.finish(["Init", "Mathlib.Data"]))
    assert [name for name, _ in module.imports] == [("Init",), ("Mathlib", "Data")]
    found = {".".join(map(str, module.terms.names[name])): module.declaration(name) for name in module.names}
    kinds = {name: declaration.kind for name, declaration in found.items()}
    assert kinds == {
        "A.7.ax": "axiom",
        "thm": "theorem",
        "«uni»code.ℝ": "def",
        "Two": "inductive",
        "Two.a": "constructor",
        "Two.b": "constructor",
    }
    assert module.terms.names[found["A.7.ax"].name] == ("A", 7, "ax")
    assert shown(module, found["A.7.ax"].type) == "(sort param u)"
    assert shown(module, found["thm"].type) == "(forall Nat bvar 0)"
    assert found["thm"].value is not None
    assert shown(module, found["thm"].value) == f"(lam Nat nat {big})"
    assert [module.terms.names[name] for name in found["thm"].params] == [("u",), ("v",)]
    assert found["«uni»code.ℝ"].value is not None
    assert shown(module, found["«uni»code.ℝ"].value) == "str 'a\\x00bé'"
    assert not found["«uni»code.ℝ"].safe
    assert found["thm"].safe
    assert [module.terms.names[name] for name in found["Two"].related] == [("Two",), ("Two", "a"), ("Two", "b")]


def test_parts_point_into_each_other(writer: Any) -> None:
    """The last part is the whole module, and may use objects of the first."""
    first, last = writer(4, base=0x10000), writer(4, base=0x20000)
    shared = first.const("Shared")
    first.axiom("public", shared)
    last.axiom("public", shared)
    last.axiom("hidden", last.app(shared, shared))
    parts = first.finish(), last.finish()
    module = opened(*parts)
    assert {module.terms.names[name][0] for name in module.names} == {"public", "hidden"}
    hidden = module.find(("hidden",))
    assert hidden is not None
    assert shown(module, module.declaration(hidden).type) == "(app Shared Shared)"
    assert len(opened(parts[0]).names) == 1
    assert "outside" in refused(parts[1]) or "before" in refused(parts[1])
    with pytest.raises(OleanError, match="overlap"):
        opened(parts[0], parts[0])


def test_depth_and_sharing_cost_no_more_than_their_size(writer: Any) -> None:
    """A term nested 50,000 deep, and one that as a tree has 2^1000 leaves, are read; equal ones have one number."""
    w = writer(8)
    deep = doubled = w.const("c")
    for _ in range(50_000):
        deep = w.pi(w.const("c"), deep)
    for _ in range(1000):
        doubled = w.app(doubled, doubled)
    long = ".".join(["n"] * 1000)
    w.axiom("deep", deep)
    w.axiom("doubled", doubled)
    w.axiom("annotated", w.mdata(doubled))
    w.axiom(long, w.sort())
    module = opened(w.finish())
    types = [module.declaration(name).type for name in module.names]
    assert types[1] == types[2]
    assert len(module.terms.constants(types[0])) == len(module.terms.constants(types[1])) == 1
    assert max(len(name) for name in module.terms.names) == 1000


def test_a_file_cut_off_anywhere_is_refused(writer: Any) -> None:
    w = writer(8)
    w.theorem("thm", w.sort(), w.literal(3))
    data = w.finish()
    for length in range(len(data)):
        assert refused(data[:length])


@pytest.mark.parametrize(("width", "version", "gmp"), LAYOUTS)
def test_a_whole_file_has_nothing_that_is_not_reached(writer: Any, width: int, version: int, gmp: bool) -> None:
    """A pointer that leads elsewhere leaves what it led to behind, and that shows."""
    w = writer(width, version, gmp)
    w.theorem("thm", w.const("False"), w.lam(w.const("Nat"), w.literal(7**90)))
    other, value = w.const("True"), w.app(w.const("f"), w.const("g"))
    w.theorem("other", other, value)
    data = w.finish()
    assert opened(data).whole
    assert not opened(data.replace(value.to_bytes(width, "little"), other.to_bytes(width, "little"))).whole
    assert not opened(data + bytes(width)).whole


def test_unknown_headers_are_refused(writer: Any) -> None:
    w = writer(8)
    w.axiom("ax", w.sort())
    data = w.finish()
    assert "version 3" in refused(data[:5] + b"\3" + data[6:])
    assert "flags" in refused(data[:6] + b"\2" + data[7:])
    assert "not a compiled module" in refused(b"ELF\0\0" + data[5:])
    assert "no root" in refused(data[:88] + struct.pack("<Q", 1 << 60) + data[96:])
    assert "not a compiled module" in refused(b"")


def test_cycles_and_false_sizes_are_refused(writer: Any) -> None:
    """What no Lean writes: terms, names, levels and lists that contain themselves, and objects larger than the file."""

    def patched(at: int, value: int, build: Any) -> bytes:
        """The module after the word at `at` fields into the object that `build` returns has been overwritten."""
        w = writer(8)
        word = build(w)
        data = bytearray(w.finish())
        offset = word - w.base + 8 + 8 * at
        data[offset : offset + 8] = (value or word).to_bytes(8, "little")
        return bytes(data)

    def app(w: Any) -> int:
        word = w.app(w.const("f"), w.const("x"))
        w.axiom("ax", w.app(word, word))
        return word

    def name(w: Any) -> int:
        w.axiom("a.b.c", w.sort())
        return w.name("a.b")

    def level(w: Any) -> int:
        word = w.node(1, w.param("u"), scalars=bytes(8))
        w.axiom("ax", w.sort(word))
        return word

    def levels(w: Any) -> int:
        word = w.list([w.param("u")])
        w.axiom("ax", w.node(4, w.name("c"), word, scalars=bytes(8)))
        return word

    def array(w: Any) -> int:
        word = w.array([])
        w.axiom("ax", w.sort())
        return word

    def string(w: Any) -> int:
        w.axiom("some", w.sort())
        return w.string("some")

    def number(w: Any) -> int:
        word = w.natural(1 << 100)
        w.axiom("ax", w.node(9, w.node(0, word), scalars=bytes(8)))
        return word

    assert "itself" in refused(patched(1, 0, app))
    assert "itself" in refused(patched(0, 0, name))
    assert "itself" in refused(patched(0, 0, level))
    assert "never ends" in refused(patched(1, 0, levels))
    assert "cut off" in refused(patched(0, 1 << 40, string))
    assert refused(patched(0, (1 << 62) | (1 << 31), number))
    assert refused(patched(0, 0xFFFFFFFF00000001, number))
    assert opened(patched(1, 1 << 40, array)).names  # an array's capacity means nothing


def test_open_terms_are_refused(writer: Any) -> None:
    """Metavariables and free variables stand in no finished declaration."""
    for tag in (1, 2):
        w = writer(8)
        w.axiom("ax", w.node(tag, w.name("m"), scalars=bytes(8)))
        assert "open ends" in refused(w.finish())


def test_reads_a_module_of_a_real_lean(compiled: Mapping[str, bytes]) -> None:
    module = read(compiled)
    assert [name for name, _ in module.imports] == [("Init",)]
    kinds = {module.terms.names[name][-2:]: module.kind(name) for name in module.names}
    assert kinds["P0", "t1"] == "theorem"
    assert kinds["C3a", "cheat"] == kinds["C4c", "isZero"] == "axiom"
    assert kinds["P1", "Tree"] == kinds["P1", "Pt"] == "inductive"
    assert kinds["Tree", "node"] == "constructor"
    assert kinds["Tree", "rec"] == "recursor"
    for name in module.names:
        assert module.declaration(name).name == name
    assert module.whole
    literals = {node[1] for node in module.terms.nodes if node[0] in ("nat", "str")}
    assert {12345678901234567890123, "a.b"} <= literals


def mutated(random_: random.Random, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Bits flipped, bytes, words and runs overwritten, pointers moved a little, ends cut off."""
    changed = dict(files)
    name = random_.choice([*files, *sorted(files)[-2:] * 3])
    data = bytearray(files[name])
    for _ in range(random_.choice((1, 1, 1, 2, 6))):
        at, source, run = random_.randrange(len(data)), random_.randrange(len(data)), random_.randrange(1, 64)
        word = at & ~3
        match random_.randrange(7):
            case 0:
                data[at] ^= 1 << random_.randrange(8)
            case 1:
                data[at] = random_.randrange(256)
            case 2:
                data[word : word + 4] = data[source & ~3 : (source & ~3) + 4]
            case 3:
                data[at : at + run] = data[source : source + run]
            case 4:
                data[at : at + run] = bytes(min(run, len(data) - at))
            case 5:
                moved = int.from_bytes(data[word : word + 4], "little") + random_.choice((-16, -8, -4, 4, 8, 16))
                data[word : word + 4] = (moved % (1 << 32)).to_bytes(4, "little")
            case 6:
                del data[max(at, 1) :]
    changed[name] = bytes(data)
    return changed


@pytest.mark.slow
def test_mutations_get_an_answer_or_an_error(compiled: Mapping[str, bytes], lean_library: Path) -> None:
    """And no cheat gets a certificate; an honest proof need not keep its own."""
    library = Library.of([("Init",)], [lean_library])
    reference = read(compiled)
    false, true = Statement.of(reference, "R3", "t4"), Statement.of(reference, "R0", "t1")
    assert certify(reference, "P0", true, library).granted
    answers = errors = 0
    for seed in range(MUTATIONS):
        try:
            module = read(mutated(random.Random(seed), compiled))
        except OleanError:
            errors += 1
            continue
        granted = [cheat for cheat in CHEATS if certify(module, cheat, false, library).granted]
        assert not granted, f"seed {seed}"
        if seed % 10 == 0:
            certify(module, "P0", true, library)
        answers += 1
    assert answers > MUTATIONS / 10
    assert errors > MUTATIONS / 10

"""What the modules that a proof imports declare: read once from the library's own `.olean` files.

These belong to the toolchain and the project, and are trusted: what they declare as theorems is not proved again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

from .expr import Name
from .module import PARTS, Module
from .olean import OleanError

ALLOWED = frozenset({("propext",), ("Classical", "choice"), ("Quot", "sound")})
"""The axioms of Lean's logic."""

_ORIGINAL_KINDS = "privateConstKindsExt"
"""Where a module that exports its theorems without proofs, as axioms, has what they were declared as."""
_AXIOM = 2 * 2 + 1
"""The word of the third of Lean's `ConstantKind`: defn, thm, axiom, …"""


class LibraryError(Exception):
    """An imported module is in none of the folders, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Library:
    """All that is imported: the hashes of the names, and the axioms beyond those of Lean's logic."""

    hashes: frozenset[int]
    axioms: frozenset[Name]

    def __contains__(self, name: Name) -> bool:
        return hash(name) in self.hashes

    @classmethod
    def of(cls, imports: Sequence[Name], folders: Sequence[Path]) -> Library:
        """What these modules declare, directly or through others. `folders` are searched in order, as Lean does with
        `LEAN_PATH` and its own library (`lean --print-libdir`).

        Raises:
            LibraryError: a module is in none of the folders, or cannot be read.
        """
        return _library(frozenset(imports), tuple(folders))


@lru_cache(maxsize=16)
def _library(imports: frozenset[Name], folders: tuple[Path, ...]) -> Library:
    hashes: set[int] = set()
    axioms: set[Name] = set()
    seen = set(imports)
    todo = list(seen)
    while todo:
        scanned = _scanned(_locate(todo.pop(), folders))
        hashes |= scanned.hashes
        axioms |= scanned.axioms
        todo += scanned.imports - seen
        seen |= scanned.imports
    return Library(frozenset(hashes), frozenset(axioms - ALLOWED))


@dataclass(frozen=True, slots=True)
class _Scanned:
    hashes: frozenset[int]
    axioms: frozenset[Name]
    imports: frozenset[Name]


def _locate(name: Name, folders: tuple[Path, ...]) -> Path:
    relative = "/".join(str(part) for part in name) + ".olean"
    for folder in folders:
        path = folder / relative
        if path.is_file():
            return path
    raise LibraryError(f"the imported module {'.'.join(map(str, name))} is in none of the folders searched")


@lru_cache(maxsize=65536)
def _scanned(path: Path) -> _Scanned:
    """What one module declares and imports. Libraries do not change while a program runs."""
    try:
        files = [file for end in PARTS if (file := path.with_name(path.name + end)).is_file()]
        module = Module([_mapped(file) for file in files])
        axioms = module.axioms()
        if axioms and files[-1].suffix != PARTS[-1]:
            originals = module.stored(_ORIGINAL_KINDS)
            axioms = [name for name in axioms if originals.get(name, _AXIOM) == _AXIOM]
        names = module.terms.names
        hashes = frozenset(hash(names[name]) for name in module.names)
        imports = frozenset(name for name, _ in module.imports)
        return _Scanned(hashes, frozenset(names[name] for name in axioms), imports)
    except (OleanError, OSError, ValueError) as error:
        raise LibraryError(f"{path} cannot be read: {error}") from None


def _mapped(path: Path) -> mmap:
    """A file of which only what is looked at is read: Mathlib's are several gigabytes."""
    with path.open("rb") as stream:
        return mmap(stream.fileno(), 0, access=ACCESS_READ)

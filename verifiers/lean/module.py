"""A compiled Lean module: what it imports and what it declares, read from its `.olean` when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .expr import Name, TermReader, Terms, written
from .olean import Buffer, Image, OleanError

PARTS = ("", ".server", ".private")
"""What the names of a module's files end in, after `.olean`; the last that exists has everything."""
KINDS = ("axiom", "def", "theorem", "opaque", "quot", "inductive", "constructor", "recursor")
"""Of declarations, in the order of Lean's `ConstantInfo`."""
_SAFE = 1
"""Of Lean's `DefinitionSafety`: unsafe, safe, partial."""
_BLOCK = ("inductive", "constructor")
_Common = tuple[int, str, tuple[int, ...], int]
_OWN_FIELDS = {
    "axiom": 1,
    "def": 4,
    "theorem": 3,
    "opaque": 3,
    "quot": 1,
    "inductive": 5,
    "constructor": 5,
    "recursor": 7,
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """One constant. `type`, `value` and `sides` (a recursor's right sides) are nodes of the module's `terms`; `name`,
    `params` and `related` are numbers of names there.

    `related` and `numbers` are what else makes it what it is: of an inductive type those declared with it and their
    constructors, how many parameters and indices it has; of a constructor its type, its place and fields; of a
    recursor the constructor and the fields of each rule.
    """

    name: int
    kind: str
    params: tuple[int, ...]
    type: int
    value: int | None = None
    sides: tuple[int, ...] = ()
    safe: bool = True
    related: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()


class Module:
    """What one module imports and declares.

    Raises:
        OleanError: the file is not a compiled module, on opening or when a declaration is asked for.
    """

    def __init__(self, parts: Sequence[Buffer]):
        self._image = Image(parts)
        self.terms = Terms()
        self._read = TermReader(self._image, self.terms)
        self.header = self._image.headers[0]
        root = self._fields(self._image.root(len(parts) - 1), 5)  # the last part has all, the first what is exported
        self.imports = tuple(self._import(word) for word in self._image.array(root[0]))
        self._names, self._constants, self._entries = self._image.array(root[1]), self._image.array(root[2]), root[4]
        if len(self._names) != len(self._constants):
            raise OleanError("names and declarations do not match")
        self._declarations: dict[int, Declaration] = {}
        self._uses: dict[int, frozenset[int]] = {}

    def __contains__(self, name: int) -> bool:
        return name in self._words

    def find(self, name: Name) -> int | None:
        """The number of a name that is declared here."""
        words = self._words
        number = self.terms.find_name(name)
        return number if number in words else None

    @cached_property
    def written(self) -> Counter[Name]:
        """How many declarations have a name that is written so."""
        return Counter(written(self.terms.names[name]) for name in self._words)

    @property
    def names(self) -> tuple[int, ...]:
        """The numbers of the names of all that is declared here."""
        return tuple(self._words)

    @cached_property
    def _words(self) -> dict[int, int]:
        """Where each declaration is, by its name."""
        words = {self._read.name(name): word for name, word in zip(self._names, self._constants, strict=True)}
        if len(words) != len(self._names):
            raise OleanError("two declarations of one name")
        return words

    @cached_property
    def whole(self) -> bool:
        """Whether the file looks untouched, see `Image.whole`."""
        return self._image.whole()

    def axioms(self) -> list[int]:
        """The names of all axioms, without reading those of anything else."""
        pairs = zip(self._names, self._constants, strict=True)
        return [self._read.name(name) for name, word in pairs if self._kind(word) == "axiom"]

    def kind(self, name: int) -> str:
        """The kind of a declaration, without reading the rest of it."""
        return self._kind(self._words[name])

    def _kind(self, word: int) -> str:
        tag, _, _ = self._image.constructor(word, 1)
        if tag >= len(KINDS):
            raise OleanError("a declaration of an unknown kind")
        return KINDS[tag]

    def declaration(self, name: int) -> Declaration:
        """The declaration of that name; KeyError where there is none."""
        if name not in self._declarations:
            self._declarations[name] = self._declaration(name, self.kind(name))
        return self._declarations[name]

    def uses(self, name: int) -> frozenset[int]:
        """The constants that a declaration of this module rests on; none where it is declared elsewhere.

        What is declared in one go rests together on what is outside: an inductive type, the types beside it and all
        their constructors; or the recursors of these, which mention each other in their rules.
        """
        if name not in self._words:
            return frozenset()
        if name not in self._uses:
            found = self.declaration(name)
            siblings = self._siblings(found)
            used = set(found.related).union(*(self._mentioned(one) for one in (found, *siblings)))
            self._uses[name] = frozenset(used - {one.name for one in siblings})
        return self._uses[name]

    def stored(self, extension: str) -> dict[int, int]:
        """What an extension of Lean's environment stored here by name: the words. `extension` is the last component of
        its own name, which with the rest changes between versions."""
        for word in self._image.array(self._entries):
            name, entries = self._fields(word, 2)
            if self.terms.names[self._read.name(name)][-1:] == (extension,):
                pairs = [self._fields(entry, 2) for entry in self._image.array(entries)]
                return {self._read.name(name): value for name, value in pairs}
        return {}

    def _fields(self, word: int, pointers: int) -> tuple[int, ...]:
        return self._image.constructor(word, pointers)[1][:pointers]

    def _import(self, word: int) -> tuple[Name, bytes]:
        """The module's name, and how it is imported."""
        _, fields, flags = self._image.constructor(word, 1)
        return self.terms.names[self._read.name(fields[0])], flags

    def _declaration(self, name: int, kind: str) -> Declaration:
        (word,) = self._fields(self._words[name], 1)
        _, fields, flags = self._image.constructor(word, 1)
        if kind == "quot" or kind == "axiom":
            fields = fields[:1]
        if len(fields) < _OWN_FIELDS[kind]:
            raise OleanError("a declaration with other fields was expected")
        own, params, type_ = self._fields(fields[0], 3)
        if self._read.name(own) != name:
            raise OleanError("a declaration has two names")
        common = (name, kind, self._read.list_names(params), self._read.expression(type_))
        match kind:
            case "axiom":
                return Declaration(*common, safe=not self._flag(flags, 0))
            case "def":
                return Declaration(*common, self._read.expression(fields[1]), safe=self._flag(flags, 0) == _SAFE)
            case "theorem":
                return Declaration(*common, self._read.expression(fields[1]))
            case "opaque":
                return Declaration(*common, self._read.expression(fields[1]), safe=not self._flag(flags, 0))
            case "quot":
                return Declaration(*common, numbers=(self._flag(flags, 0),))
            case "inductive":
                return self._inductive(common, fields, flags)
            case "constructor":
                return self._constructor(common, fields, flags)
        return self._recursor(common, fields, flags)

    def _inductive(self, common: _Common, fields: tuple[int, ...], flags: bytes) -> Declaration:
        together, constructors = self._read.list_names(fields[3]), self._read.list_names(fields[4])
        numbers = (len(together), *(self._image.natural(word) for word in (*fields[1:3], *fields[5:])))
        return Declaration(*common, safe=not self._flag(flags, 1), related=(*together, *constructors), numbers=numbers)

    def _constructor(self, common: _Common, fields: tuple[int, ...], flags: bytes) -> Declaration:
        numbers = tuple(self._image.natural(word) for word in fields[2:5])
        return Declaration(
            *common, safe=not self._flag(flags, 0), related=(self._read.name(fields[1]),), numbers=numbers
        )

    def _recursor(self, common: _Common, fields: tuple[int, ...], flags: bytes) -> Declaration:
        together = self._read.list_names(fields[1])
        rules = [self._fields(word, 3) for word in self._read.list(fields[6])]
        counts = (self._image.natural(word) for word in (*fields[2:6], *(rule[1] for rule in rules)))
        return Declaration(
            *common,
            sides=tuple(self._read.expression(rule[2]) for rule in rules),
            safe=not self._flag(flags, 1),
            related=(*together, *(self._read.name(rule[0]) for rule in rules)),
            numbers=(len(together), self._flag(flags, 0), *counts),
        )

    def _mentioned(self, found: Declaration) -> set[int]:
        roots = (found.type, *found.sides, *(() if found.value is None else (found.value,)))
        return {name for root in roots for name in self.terms.constants(root)}

    def _siblings(self, found: Declaration) -> list[Declaration]:
        """What was declared in one go with an inductive type or a recursor, and may mention it and be mentioned."""
        if found.kind == "inductive":
            types = [self.declaration(name) for name in found.related if self._is(name, "inductive")]
            names = {name for one in (found, *types) for name in one.related if self._is(name, *_BLOCK)}
        elif found.kind == "recursor":
            sides = {name for side in found.sides for name in self.terms.constants(side)}
            names = {name for name in sides if self._is(name, "recursor")}
        else:
            return []
        return [self.declaration(name) for name in names]

    def _is(self, name: int, *kinds: str) -> bool:
        return name in self._words and self.kind(name) in kinds

    def _flag(self, flags: bytes, at: int) -> int:
        if at >= len(flags):
            raise OleanError("a declaration with other fields was expected")
        return flags[at]


def read(files: Mapping[str, bytes]) -> Module:
    """The module whose compiled parts are among `files`: one `x.olean`, and `x.olean.server` and `x.olean.private`
    where Lean wrote them.

    Raises:
        OleanError: there is no module, more than one, or it is not as Lean writes it.
    """
    names = [name for name in files if name.endswith(".olean")]
    if len(names) != 1:
        raise OleanError(f"one module was expected, not {len(names)}")
    return Module([files[name] for name in (names[0] + end for end in PARTS) if name in files])

"""Writes compiled Lean modules from terms, as Lean lays them out: for tests that need a module nobody can compile.

Layouts after lean4's `src/runtime/object.h` and `src/library/module.cpp`; words are 4 or 8 bytes wide.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

KINDS = ("axiom", "def", "theorem", "opaque", "quot", "inductive", "constructor", "recursor")


class Writer:
    """One part of a module. All methods but `finish` return words: addresses, or small numbers with a set low bit."""

    def __init__(self, width: int = 8, version: int = 2, gmp: bool = True, base: int = 0x7F0000):
        self.width, self.version, self.gmp, self.base = width, version, gmp, base
        self._letter = "I" if width == 4 else "Q"
        self._data = bytearray((80 if version == 2 else 48) + 2 * width)
        self._known: dict[bytes, int] = {}
        self._constants: list[tuple[int, int]] = []

    def object(self, tag: int, other: int, body: bytes, size: int | None = None) -> int:
        """Any object: equal ones are written once."""
        self._data += bytes(-len(self._data) % self.width)
        size = 8 + len(body) if size is None else size
        image = struct.pack("<IHBB", 0, size & 0xFFFF, other, tag) + body
        if image not in self._known:
            self._known[image] = self.base + len(self._data)
            self._data += image
        return self._known[image]

    def node(self, tag: int, *words: int, scalars: bytes = b"") -> int:
        """A constructor's object."""
        return self.object(tag, len(words), self._words(words) + scalars + bytes(-len(scalars) % self.width))

    def array(self, words: Sequence[int]) -> int:
        """An array."""
        return self.object(246, 0, self._words((len(words), len(words), *words)), size=1)

    def string(self, text: str) -> int:
        """A string."""
        data = text.encode() + b"\0"
        return self.object(249, 0, self._words((len(data), len(data), len(text))) + data, size=1)

    def natural(self, number: int) -> int:
        """A natural number, as small as it goes."""
        if number < 1 << (8 * self.width - 1):
            return number << 1 | 1
        if self.gmp:
            count = -(-number.bit_length() // (8 * self.width))
            body = struct.pack("<ii", count, count) + self._words((0,)) + number.to_bytes(count * self.width, "little")
        else:
            count = -(-number.bit_length() // 32)
            body = self._words((0, count, 0)) + number.to_bytes(4 * count, "little")
        return self.object(250, 0, body)

    def list(self, words: Iterable[int]) -> int:
        """A linked list."""
        found = 1
        for word in reversed(list(words)):
            found = self.node(1, word, found)
        return found

    def name(self, text: str) -> int:
        """A name; components of digits are numbers."""
        found = 1
        for part in filter(None, text.split(".")):
            last = self.natural(int(part)) if part.isdigit() else self.string(part)
            found = self.node(2 if part.isdigit() else 1, found, last, scalars=bytes(8))
        return found

    def names(self, texts: Iterable[str]) -> int:
        """A list of names."""
        return self.list(self.name(text) for text in texts)

    def param(self, name: str) -> int:
        """A universe parameter."""
        return self.node(4, self.name(name), scalars=bytes(8))

    def sort(self, level: int = 1) -> int:
        """`Sort level`; `Prop` by default."""
        return self.node(3, level, scalars=bytes(8))

    def const(self, name: str, *levels: int) -> int:
        """A constant."""
        return self.node(4, self.name(name), self.list(levels), scalars=bytes(8))

    def app(self, function: int, *arguments: int) -> int:
        """A function applied to arguments."""
        for argument in arguments:
            function = self.node(5, function, argument, scalars=bytes(8))
        return function

    def lam(self, type_: int, body: int, name: str = "x") -> int:
        """`fun name : type => body`."""
        return self.node(6, self.name(name), type_, body, scalars=bytes(9))

    def pi(self, type_: int, body: int, name: str = "x") -> int:
        """`(name : type) → body`."""
        return self.node(7, self.name(name), type_, body, scalars=bytes(9))

    def bvar(self, index: int) -> int:
        """A bound variable."""
        return self.node(0, self.natural(index), scalars=bytes(8))

    def literal(self, value: int | str) -> int:
        """A number or a text."""
        word = self.natural(value) if isinstance(value, int) else self.string(value)
        return self.node(9, self.node(0 if isinstance(value, int) else 1, word), scalars=bytes(8))

    def mdata(self, term: int) -> int:
        """An annotated term."""
        return self.node(10, 1, term, scalars=bytes(8))

    def declare(
        self, kind: str, name: str, type_: int, *fields: int, params: Sequence[str] = (), flags: bytes = b"\0\0\0"
    ) -> None:
        """A constant of the module; `fields` are those of its kind after name, parameters and type."""
        common = self.node(0, self.name(name), self.names(params), type_)
        value = self.node(0, common, *fields, scalars=flags)
        self._constants.append((self.name(name), self.node(KINDS.index(kind), value)))

    def axiom(self, name: str, type_: int, unsafe: bool = False) -> None:
        """`axiom name : type`."""
        self.declare("axiom", name, type_, flags=bytes([unsafe]))

    def theorem(self, name: str, type_: int, value: int, params: Sequence[str] = ()) -> None:
        """`theorem name : type := value`."""
        self.declare("theorem", name, type_, value, self.names([name]), params=params, flags=b"")

    def definition(self, name: str, type_: int, value: int, safety: int = 1) -> None:
        """`def name : type := value`; safety 0 is unsafe, 1 safe, 2 partial."""
        self.declare("def", name, type_, value, 1, self.names([name]), flags=bytes([safety]))

    def inductive(self, name: str, type_: int, constructors: dict[str, int], together: Sequence[str] = ()) -> None:
        """`inductive name : type` with its constructors' types, without the recursor."""
        related = (self.names(together or [name]), self.names(constructors))
        zero = self.natural(0)
        self.declare("inductive", name, type_, zero, zero, *related, zero)
        for place, (constructor, its_type) in enumerate(constructors.items()):
            self.declare("constructor", constructor, its_type, self.name(name), self.natural(place), zero, zero)

    def finish(self, imports: Sequence[str] = ("Init",)) -> bytes:
        """The bytes of the part."""
        brought = self.array([self.node(0, self.name(module), scalars=bytes([0, 1, 0])) for module in imports])
        names, constants = (self.array(words) for words in zip(*self._constants, strict=True))
        nothing = self.array([])
        root = self.node(0, brought, names, constants, nothing, nothing, scalars=b"\1")
        if self.version == 2:
            header = b"olean\2" + bytes([self.gmp]) + b"4.28.0".ljust(33, b"\0") + b"c" * 40
        else:
            header = b"olean\1" + b"c" * 40 + b"\0\0"
        self._data += bytes(-len(self._data) % self.width)
        return header + self._words((self.base, root)) + bytes(self._data[len(header) + 2 * self.width :])

    def _words(self, words: Sequence[int]) -> bytes:
        return struct.pack(f"<{len(words)}{self._letter}", *words)

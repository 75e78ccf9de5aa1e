"""Lean's compiled modules (`.olean`) as bytes: the header, and objects behind checked pointers.

A file is an image of Lean's heap, written to be mapped at a fixed address (lean4's `src/library/module.cpp` and
`src/runtime/compact.cpp`). What is read here may come from a hostile process, so every pointer, size and tag is
checked, nothing is trusted for being written by Lean, and whatever is wrong is an `OleanError`. Words are 4 or 8 bytes
wide, as on the machine that compiled; both are read.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap

MAX_BYTES = 1 << 30
"""Of all parts of one module; the largest of Mathlib's is a tenth of it."""
MAX_STRING = 1 << 24
"""Bytes of one string."""
MAX_BIGNUM = 1 << 20
"""Bytes of one number."""

_MARKER = b"olean"
_ARRAY, _SCALAR_ARRAY, _STRING, _BIGNUM = 246, 248, 249, 250
_MAX_CONSTRUCTOR = 244
_POINTERS = {251: (1, 2), 252: (1, 2), 253: (1, 1)}
"""Of a thunk, a task and a reference: how many of their words point to something, and how many they have."""
_ALIGNMENT = 1 << 16
_HEADER = 8
"""Bytes before an object's fields: reference count, size, number of pointers, tag."""


Buffer = bytes | mmap


class OleanError(Exception):
    """A file that is not a compiled module as this reader knows it."""


@dataclass(frozen=True, slots=True)
class Header:
    """Who wrote a part, and where its words point: `base` is the address of its first byte."""

    version: str
    commit: str
    width: int
    gmp: bool
    base: int
    root: int
    size: int
    """Bytes of the header itself; objects follow."""


class Image:
    """The parts of one module, which point into each other.

    Raises:
        OleanError: a header is unknown, or the parts do not fit together.
    """

    def __init__(self, parts: Sequence[Buffer]):
        if not parts or sum(map(len, parts)) > MAX_BYTES:
            raise OleanError("a module has at least one part, and at most 1 GiB")
        self.headers = [_header(part) for part in parts]
        first = self.headers[0]
        if any((h.width, h.gmp, h.commit) != (first.width, first.gmp, first.commit) for h in self.headers):
            raise OleanError("parts by different Leans")
        order = sorted(range(len(parts)), key=lambda i: self.headers[i].base)
        self._parts = [parts[i] for i in order]
        self._bases = [self.headers[i].base for i in order]
        self._starts = [self.headers[i].size for i in order]
        ends = [base + len(part) for base, part in zip(self._bases, self._parts, strict=True)]
        if any(end > base for end, base in zip(ends, self._bases[1:], strict=False)):
            raise OleanError("parts overlap")
        self.width = first.width
        self.gmp = first.gmp
        self._word = struct.Struct("<I" if first.width == 4 else "<Q")

    def root(self, part: int) -> int:
        """The address of a part's outermost object."""
        return self.headers[part].root

    def object(self, address: int) -> tuple[Buffer, int, int, int]:
        """The bytes that hold the object, its offset in them, its tag, and the number of its pointers.

        Raises:
            OleanError: there can be no object at `address`.
        """
        at = bisect_right(self._bases, address) - 1
        if at < 0:
            raise OleanError("a pointer to before the module")
        data = self._parts[at]
        offset = address - self._bases[at]
        if address % self.width or offset < self._starts[at] or offset + _HEADER > len(data):
            raise OleanError("a pointer to outside the module")
        return data, offset, data[offset + 7], data[offset + 6]

    def whole(self) -> bool:
        """Whether objects fill the parts from end to end, each pointing to earlier ones and pointed to by a later one,
        the roots apart: so Lean writes them, and a file in which something was overwritten is hardly ever so."""
        try:
            return self._fills()
        except OleanError:
            return False

    def _fills(self) -> bool:
        reached = {header.root for header in self.headers}
        starts: set[int] = set()
        for base, start, part in zip(self._bases, self._starts, self._parts, strict=True):
            offset, end = start, len(part)
            while offset < end:
                pointers, size = self._extent(part, offset)
                if not starts.issuperset(pointers):
                    return False
                reached.update(pointers)
                starts.add(base + offset)
                offset += size
            if offset != end:
                return False
        return reached == starts

    def _extent(self, data: Buffer, offset: int) -> tuple[list[int], int]:
        """The addresses that an object points to, and its size with what aligns the next one."""
        if offset + _HEADER > len(data):
            raise OleanError("an object is cut off")
        count, tag = data[offset + 6], data[offset + 7]
        fields = offset + _HEADER
        if tag <= _MAX_CONSTRUCTOR:
            size = data[offset + 4] | data[offset + 5] << 8
        elif tag == _BIGNUM:
            count, start, length, _ = 0, *self._digits(data, fields)
            size = start + length - offset
        elif tag in _POINTERS:
            count, words = _POINTERS[tag]
            size = _HEADER + words * self.width
        elif tag in (_ARRAY, _SCALAR_ARRAY, _STRING):
            (length,) = self._words(data, fields, 1)
            fields += 2 * self.width
            each = {_ARRAY: self.width, _SCALAR_ARRAY: count, _STRING: 1}[tag]
            size = fields - offset + (self.width if tag == _STRING else 0) + length * each
            count = length if tag == _ARRAY else 0
        else:
            raise OleanError(f"an object of the unknown kind {tag}")
        if offset + size > len(data) or size < _HEADER:
            raise OleanError("an object is cut off")
        pointers = [word for word in self._words(data, fields, count) if not word & 1 and word] if count else []
        return pointers, size + -size % self.width

    def constructor(self, address: int, pointers: int, scalars: int = 0) -> tuple[int, tuple[int, ...], bytes]:
        """The tag, the words of the first `pointers` fields, and the scalar bytes of an object with fields.

        Raises:
            OleanError: it is of another kind, or has fewer fields.
        """
        data, offset, tag, count = self.object(address)
        start = offset + _HEADER + count * self.width
        size = int.from_bytes(data[offset + 4 : offset + 6], "little")
        if tag > _MAX_CONSTRUCTOR or count < pointers:
            raise OleanError("an object with other fields was expected")
        if size < start - offset + scalars or offset + size > len(data):
            raise OleanError("an object with other fields was expected, or it is cut off")
        return tag, self._words(data, offset + _HEADER, count), data[start : offset + size]

    def array(self, address: int) -> tuple[int, ...]:
        """The words of an array."""
        data, offset, tag, _ = self.object(address)
        start = offset + _HEADER + 2 * self.width
        if tag != _ARRAY or start > len(data):
            raise OleanError("an array was expected")
        (size,) = self._words(data, offset + _HEADER, 1)
        if size > (len(data) - start) // self.width:
            raise OleanError("an array is cut off")
        return self._words(data, start, size)

    def string(self, address: int) -> str:
        """A string's text."""
        data, offset, tag, _ = self.object(address)
        start = offset + _HEADER + 3 * self.width
        if tag != _STRING or start > len(data):
            raise OleanError("a string was expected")
        (size,) = self._words(data, offset + _HEADER, 1)  # with the zero byte at its end
        if not 1 <= size <= min(MAX_STRING, len(data) - start):
            raise OleanError("a string is cut off or too long")
        try:
            return data[start : start + size - 1].decode("utf-8")
        except UnicodeDecodeError:
            raise OleanError("a string is not UTF-8") from None

    def natural(self, word: int) -> int:
        """A natural number: within the word where it is small, else an object of digits."""
        if word & 1:
            return word >> 1
        data, offset, tag, _ = self.object(word)
        if tag != _BIGNUM:
            raise OleanError("a number was expected")
        start, count, negative = self._digits(data, offset + _HEADER)
        if negative or count > min(MAX_BIGNUM, len(data) - start):
            raise OleanError("a number is negative, cut off or too large")
        return int.from_bytes(data[start : start + count], "little")

    def _digits(self, data: Buffer, at: int) -> tuple[int, int, bool]:
        """Where a number's digits start, how many bytes they are, and whether it is negative."""
        start = at + (8 + self.width if self.gmp else 3 * self.width)
        if start > len(data):
            raise OleanError("a number is cut off")
        if self.gmp:
            _, size = struct.unpack_from("<ii", data, at)
            return start, abs(size) * self.width, size < 0
        return start, 4 * self._words(data, at + self.width, 1)[0], data[at] != 0

    def _words(self, data: Buffer, start: int, count: int) -> tuple[int, ...]:
        if start + count * self.width > len(data):
            raise OleanError("an object is cut off")
        return struct.unpack_from(f"<{count}{'I' if self.width == 4 else 'Q'}", data, start)


def _header(data: Buffer) -> Header:
    """Version 1 is Lean's until 4.11, version 2 adds flags and Lean's version; the word's width is not stated, and
    shows in where the root lies."""
    if data[:5] != _MARKER or len(data) < 6:
        raise OleanError("not a compiled module")
    if data[5] == 1:
        gmp, version, commit, size = True, "", data[6:48], 48
    elif data[5] == 2 and len(data) > 80:
        if data[6] > 1:
            raise OleanError(f"flags {data[6]:#x} are unknown")
        gmp, version, commit, size = data[6] == 1, _text(data[7:40]), data[40:80], 80
    else:
        raise OleanError(f"version {data[5]} of the format is unknown")
    for width in (8, 4):
        start = size + 2 * width
        if len(data) < start:
            continue
        base = int.from_bytes(data[size : size + width], "little")
        root = int.from_bytes(data[size + width : start], "little")
        if base % _ALIGNMENT == 0 and base + start <= root <= base + len(data) - _HEADER:
            return Header(version, _text(commit), width, gmp, base, root, start)
    raise OleanError("the header points to no root")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("ascii", "replace")

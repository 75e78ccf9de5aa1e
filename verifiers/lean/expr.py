"""Lean's names, universe levels and expressions as interned nodes: equal terms have equal numbers.

Terms are graphs, and as trees they can be exponentially large; each node is visited once here, however often it is
used. Binder names, binder kinds and annotations (`mdata`) are left out, as they mean nothing to Lean's kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .olean import Image, OleanError

MAX_NODES = 4_000_000
"""Terms read from one module, some 300 bytes each; long names, lists and literals count for several."""
MAX_VISITS = 20_000_000
"""Nodes looked at while constants are collected in one table: what is shared is looked at for each that shares it."""
MAX_LIST = 100_000
"""Items of a list."""

MAX_COMPONENTS = 1000
"""Of a name."""

Name = tuple[str | int, ...]
"""A name's components, from the root; `()` is the anonymous name."""
Node = tuple[Any, ...]
"""A kind, then its fields: numbers of other nodes, numbers of names, or plain values, see `Terms`."""

_LEVELS = ("zero", "succ", "max", "imax", "param")
_EXPRESSIONS = ("bvar", "fvar", "mvar", "sort", "const", "app", "lam", "forall", "let", "lit", "mdata", "proj")
_POINTERS = {
    "bvar": 1,
    "sort": 1,
    "const": 2,
    "app": 2,
    "lam": 3,
    "forall": 3,
    "let": 4,
    "lit": 1,
    "mdata": 2,
    "proj": 3,
}
_INNER = {
    "succ": (1,),
    "max": (1, 2),
    "imax": (1, 2),
    "sort": (1,),
    "app": (1, 2),
    "lam": (1, 2),
    "forall": (1, 2),
    "let": (1, 2, 3),
    "proj": (3,),
}
"""Which fields of a node are numbers of other nodes; `const` has a tuple of them in its second."""


def written(name: Name) -> Name:
    """A name as its author wrote it: a private one is `_private.<module>.0.<name>` in the file."""
    if name[:1] == ("_private",) and 0 in name:
        return name[name.index(0) + 1 :]
    return name


class Terms:
    """A table of nodes.

    Nodes: `zero`, `succ a`, `max a b`, `imax a b`, `param name`; `bvar index`, `sort level`, `const name (levels)`,
    `app function argument`, `lam type body`, `forall type body`, `let type value body`, `nat n`, `str s`,
    `proj structure index value`.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self.names: list[tuple[Any, ...]] = []
        self._name_numbers: dict[tuple[Any, ...], int] = {}
        self._frozen = False
        self._visits = MAX_VISITS

    def node(self, *fields: Any) -> int:
        """The number of the node with these fields."""
        number = self._numbers.get(fields)
        if number is None:
            if self._frozen:
                raise UnknownTermError(fields[0])
            number = self._numbers[fields] = len(self.nodes)
            self.nodes.append(fields)
        return number

    def name(self, name: tuple[Any, ...]) -> int:
        """The number of a name, or of whatever else is to stand for a constant."""
        number = self._name_numbers.get(name)
        if number is None:
            if self._frozen:
                raise UnknownTermError("name")
            number = self._name_numbers[name] = len(self.names)
            self.names.append(name)
        return number

    def find_name(self, name: Name) -> int | None:
        """The number of a name that is in the table."""
        return self._name_numbers.get(name)

    def children(self, number: int) -> tuple[int, ...]:
        """The nodes that a node is made of."""
        node = self.nodes[number]
        if node[0] == "const":
            return node[2]
        return tuple(node[field] for field in _INNER.get(node[0], ()))

    def constants(self, number: int) -> frozenset[int]:
        """The numbers of the names of all constants in a term.

        Raises:
            OleanError: more was asked of this table than any honest module needs.
        """
        seen = {number}
        todo = [number]
        found: set[int] = set()
        while todo:
            here = todo.pop()
            node = self.nodes[here]
            if node[0] in ("const", "proj"):
                found.add(node[1])
            for child in self.children(here):
                if child not in seen:
                    seen.add(child)
                    todo.append(child)
        self._visits -= len(seen)
        if self._visits < 0:
            raise OleanError("too many terms")
        return frozenset(found)

    def freeze(self) -> None:
        """From now on only what is known already has a number; anything else is an `UnknownTermError`."""
        self._frozen = True


class UnknownTermError(Exception):
    """A frozen table was asked for a term or name that it does not hold."""


def translated(
    source: Terms, number: int, target: Terms, name: Callable[[int], int], param: Callable[[int], int]
) -> int:
    """The number in `target` of a term of `source`; `name` and `param` turn the numbers of names of constants and of
    universe parameters into those of `target`.

    Raises:
        UnknownTermError: `target` is frozen and does not hold it.
    """
    done: dict[int, int] = {}
    todo = [number]
    while todo:
        here = todo[-1]
        missing = [child for child in source.children(here) if child not in done]
        if missing:
            todo += missing
            continue
        todo.pop()
        if here in done:
            continue
        kind, *fields = source.nodes[here]
        if kind == "param":
            fields[0] = param(fields[0])
        elif kind == "const":
            fields = [name(fields[0]), tuple(done[level] for level in fields[1])]
        else:
            if kind == "proj":
                fields[0] = name(fields[0])
            for field in _INNER.get(kind, ()):
                fields[field - 1] = done[fields[field - 1]]
        done[here] = target.node(kind, *fields)
    return done[number]


class TermReader:
    """Reads the terms of one module into a table.

    All of its methods raise `OleanError` where the file is not as Lean writes it, or holds a cycle.
    """

    def __init__(self, image: Image, terms: Terms):
        self.image = image
        self.terms = terms
        self._names: dict[int, int] = {1: terms.name(())}
        self._levels: dict[int, int] = {1: terms.node("zero")}
        self._expressions: dict[int, int] = {}
        self._left = MAX_NODES

    def name(self, word: int) -> int:
        """The number of a name."""
        return self._fold(word, self._names, self._open_name)

    def level(self, word: int) -> int:
        """The number of a universe level."""
        return self._fold(word, self._levels, self._open_level)

    def expression(self, word: int) -> int:
        """The number of an expression."""
        return self._fold(word, self._expressions, self._open_expression)

    def list(self, word: int) -> list[int]:
        """The words of the items of a list."""
        items: list[int] = []
        while word != 1:
            _, (item, word), _ = self._fields(word, 2)
            items.append(item)
            self._charge(1)
            if len(items) > MAX_LIST:
                raise OleanError("a list is too long or never ends")
        return items

    def list_names(self, word: int) -> tuple[int, ...]:
        """The numbers of the names in a list."""
        return tuple(self.name(item) for item in self.list(word))

    def _fields(self, word: int, pointers: int, scalars: int = 0) -> tuple[int, tuple[int, ...], bytes]:
        tag, words, rest = self.image.constructor(word, pointers, scalars)
        if len(words) != pointers:
            raise OleanError("an object with other fields was expected")
        return tag, words, rest

    def _fold(
        self, word: int, done: dict[int, int], open_: Callable[[int], tuple[list[int], Callable[[], int]]]
    ) -> int:
        """Build `word` after what it is made of, without recursion. `open_` gives what that is, and the building."""
        if word in done:
            return done[word]
        opened: dict[int, tuple[list[int], Callable[[], int]]] = {}
        todo = [word]
        while todo:
            here = todo[-1]
            if here in done:
                todo.pop()
            elif here in opened:
                inner, build = opened.pop(here)
                if any(child not in done for child in inner):
                    raise OleanError("a term contains itself")
                done[here] = build()
            else:
                self._charge(1)
                opened[here] = open_(here)
                todo += [child for child in opened[here][0] if child not in done]
        return done[word]

    def _charge(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise OleanError("too many terms")

    def _string(self, word: int) -> str:
        text = self.image.string(word)
        self._charge(len(text) >> 6)
        return text

    def _natural(self, word: int) -> int:
        number = self.image.natural(word)
        self._charge(number.bit_length() >> 9)
        return number

    def _open_name(self, word: int) -> tuple[list[int], Callable[[], int]]:
        tag, (prefix, last), _ = self._fields(word, 2)
        if tag not in (1, 2):
            raise OleanError("a name was expected")
        component = self._string(last) if tag == 1 else self._natural(last)
        if isinstance(component, int) and component >> 64:
            raise OleanError("a name holds a number that Lean never gives")
        return [prefix], lambda: self._name(prefix, component)

    def _name(self, prefix: int, last: str | int) -> int:
        before = self.terms.names[self._names[prefix]]
        if len(before) >= MAX_COMPONENTS:
            raise OleanError("a name is too long")
        self._charge(len(before) >> 3)
        return self.terms.name((*before, last))

    def _open_level(self, word: int) -> tuple[list[int], Callable[[], int]]:
        tag, words, _ = self.image.constructor(word, 0)
        if tag >= len(_LEVELS) or len(words) != (0, 1, 2, 2, 1)[tag]:
            raise OleanError("a universe level was expected")
        kind, node, done = _LEVELS[tag], self.terms.node, self._levels
        if kind == "param":
            name = self.name(words[0])
            return [], lambda: node(kind, name)
        return list(words), lambda: node(kind, *(done[inner] for inner in words))

    def _open_expression(self, word: int) -> tuple[list[int], Callable[[], int]]:
        tag, words, _ = self.image.constructor(word, 0)
        kind = _EXPRESSIONS[tag] if tag < len(_EXPRESSIONS) else "none"
        if len(words) != _POINTERS.get(kind):
            raise OleanError("an expression was expected, without open ends")
        node, done = self.terms.node, self._expressions
        match kind:
            case "app":
                return list(words), lambda: node(kind, done[words[0]], done[words[1]])
            case "lam" | "forall":
                return list(words[1:]), lambda: node(kind, done[words[1]], done[words[2]])
            case "let":
                return list(words[1:]), lambda: node(kind, done[words[1]], done[words[2]], done[words[3]])
            case "mdata":
                return [words[1]], lambda: done[words[1]]
            case "proj":
                name, index = self.name(words[0]), self._natural(words[1])
                return [words[2]], lambda: node(kind, name, index, done[words[2]])
        leaf = self._leaf(kind, words)
        return [], lambda: leaf

    def _leaf(self, kind: str, words: tuple[int, ...]) -> int:
        match kind:
            case "bvar":
                return self.terms.node(kind, self._natural(words[0]))
            case "sort":
                return self.terms.node(kind, self.level(words[0]))
            case "const":
                levels = tuple(self.level(level) for level in self.list(words[1]))
                return self.terms.node(kind, self.name(words[0]), levels)
        tag, (value,), _ = self._fields(words[0], 1)
        if tag == 0:
            return self.terms.node("nat", self._natural(value))
        if tag == 1:
            return self.terms.node("str", self._string(value))
        raise OleanError("a literal was expected")

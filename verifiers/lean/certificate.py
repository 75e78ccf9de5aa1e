"""A proof's certificate, from its compiled module: what was proved is what was asked, on no other ground than Lean's.

Nothing is run in Lean. What Lean's kernel checked when the module was compiled is not checked again: a kernel check
that a submission switched off shows only in a replay (`replay.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .expr import Name, Terms, UnknownTermError, translated, written
from .library import Library
from .module import Declaration, Module
from .olean import OleanError

MAX_SHOWN = 200
"""Characters of a name in a reason."""
_NAMESPACE = -1
"""Stands for a submission's namespace: no component of a name in a file is negative."""
_PARAM = -2
_CONTENT = -3
_UNKNOWN = ("unknown",)
_COMPONENT = re.compile(r"«([^»]*)»|([^.«»]+)")

Form = tuple[object, ...]
"""What a declaration says, in terms that do not depend on its namespace or on how its parameters are called."""


class StatementError(Exception):
    """The data set's own module does not state the theorem."""


class _RefusedError(Exception):
    """The reason why a certificate is not given."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`refused` is empty where the certificate is given, else says in one sentence why not."""

    refused: str

    @property
    def granted(self) -> bool:
        """Whether the theorem counts as proved."""
        return not self.refused


@dataclass(frozen=True)
class Statement:
    """What is to be proved: the theorem's name and type, and every declaration that its type reaches.

    Names hold a placeholder for the namespace. `declared` are the reached declarations of the reference's own module
    but for definitions, which are part of what mentions them; `definitions` are those that have a name of their own;
    `imported` are the names that it has from elsewhere.
    """

    name: Name
    theorem: Form
    declared: dict[Name, Form]
    definitions: dict[Name, Form]
    imported: frozenset[Name]
    imports: frozenset[Name]
    whole: bool
    """Whether this Lean writes its files as `Image.whole` expects: then a submission's has to be so too."""
    _terms: Terms = field(repr=False)

    @classmethod
    def of(cls, reference: Module, namespace: str, name: str) -> Statement:
        """The statement of theorem `name` (as it is written) in the data set's own module, whose proof is `sorry`.

        Raises:
            StatementError: the module does not hold the theorem, or more than one of that name.
            OleanError: the module cannot be read.
        """
        target = _find(reference, namespace, _parse(name))
        if reference.kind(target) != "theorem":
            raise StatementError(f"{name} is not a theorem, but a {reference.kind(target)}")
        terms = Terms()
        view = _View(reference, namespace, terms)
        try:
            theorem = view.form(target)
            declared: dict[Name, Form] = {}
            definitions: dict[Name, Form] = {}
            imported: set[Name] = set()
            for here in _reached(view, target):
                if here not in reference:
                    imported.add(view.name(here))
                elif view.by_content(here):
                    definitions[view.name(here)] = view.form(here)
                else:
                    declared[view.name(here)] = view.form(here)
        except _RefusedError as reason:
            raise StatementError(str(reason)) from None
        full = view.name(target)
        terms.freeze()
        return cls(
            full,
            theorem,
            declared,
            definitions,
            frozenset(imported),
            _imported_names(reference),
            reference.whole,
            terms,
        )


def _reached(view: _View, target: int) -> Iterator[int]:
    """All constants that the meaning of the target's statement depends on, the target itself left out."""
    todo = list(view.meaning(target))
    seen = {target, *todo}
    while todo:
        here = todo.pop()
        yield here
        new = view.meaning(here) - seen
        seen |= new
        todo += new


def certify(submission: Module, namespace: str, statement: Statement, library: Library) -> Certificate:
    """Whether the module proves the statement, in its `namespace` (empty: in none).

    The theorem must exist under its exact name, be a theorem and have the statement's elaborated type. Each declaration
    that the type reaches must be there unchanged. What the proof reaches must be declared in the module, safe, no axiom
    and not resting on itself; or in `library`, what the submission imports, and no axiom beyond those of Lean's logic.
    """
    try:
        target = _check_statement(submission, namespace, statement)
        _check_grounds(submission, target, library)
        untouched = submission.whole or not statement.whole
        return Certificate("" if untouched else "the compiled module is not as Lean wrote it")
    except _RefusedError as reason:
        return Certificate(str(reason))
    except OleanError as error:
        return Certificate(f"the compiled module cannot be read: {error}")


def _check_statement(submission: Module, namespace: str, statement: Statement) -> int:
    """The number of the theorem's name."""
    if not statement.imports <= _imported_names(submission):
        raise _RefusedError("the module does not import what the statement does")
    view = _View(submission, namespace, statement._terms)
    name = _located(statement.name, namespace)
    target = submission.find(name)
    if target is None:
        raise _RefusedError(f"there is no theorem {_shown(name)}")
    if submission.kind(target) != "theorem":
        raise _RefusedError(f"{_shown(name)} is not a theorem, but: {submission.kind(target)}")
    if submission.written[written(name)] > 1:
        raise _RefusedError(f"there are several declarations named {_shown(written(name))}")
    for wanted in statement.imported:
        if submission.find(_located(wanted, namespace)) is not None:
            raise _RefusedError(f"{_shown(wanted)}, which the statement imports, is declared anew")
    if view.form(target) != statement.theorem:
        for wanted, form in statement.definitions.items():
            here = submission.find(_located(wanted, namespace))
            if here is not None and not _auxiliary(wanted) and view.form(here) != form:
                raise _RefusedError(f"{_shown(wanted)}, which the statement needs, is another")
        raise _RefusedError(f"{_shown(name)} states something else")
    for wanted, form in statement.declared.items():
        here = submission.find(_located(wanted, namespace))
        if here is None:
            raise _RefusedError(f"{_shown(wanted)}, which the statement needs, is missing")
        if view.form(here) != form:
            raise _RefusedError(f"{_shown(wanted)}, which the statement needs, is another")
    return target


def _check_grounds(submission: Module, target: int, library: Library) -> None:
    for here in _grounds(submission, target):
        name = submission.terms.names[here]
        if here in submission:
            _check_own(submission.declaration(here), name, library)
        elif name not in library:
            raise _RefusedError(f"it rests on {_shown(name)}, which nothing declares")
        elif name in library.axioms:
            raise _RefusedError(f"it rests on the axiom {_shown(name)}")


def _check_own(found: Declaration, name: Name, library: Library) -> None:
    if name in library:
        raise _RefusedError(f"{_shown(name)} is declared anew")
    if found.kind in ("axiom", "quot"):
        raise _RefusedError(f"it rests on the axiom {_shown(name)}, which is its own")
    if not found.safe:
        raise _RefusedError(f"it rests on {_shown(name)}, which is unsafe")


def _grounds(module: Module, target: int) -> Iterator[int]:
    """All constants that the target rests on, itself included.

    Raises:
        _RefusedError: one of them rests on itself.
    """
    open_: set[int] = set()
    closed: set[int] = set()
    todo = [target]
    while todo:
        here = todo[-1]
        if here in closed:
            todo.pop()
        elif here in open_:
            todo.pop()
            open_.remove(here)
            closed.add(here)
        else:
            yield here
            open_.add(here)
            for other in module.uses(here):
                if other in open_:
                    raise _RefusedError(f"{_shown(module.terms.names[other])} rests on itself")
                if other not in closed:
                    todo.append(other)


class _View:
    """A module as seen from one namespace, in the terms of a statement.

    Definitions and theorems go by what they say, not by their names: Lean uses the auxiliary ones of one declaration
    (`match_1`, `_proof_1`) for any later one of the file that needs the same.
    """

    def __init__(self, module: Module, namespace: str, terms: Terms):
        self._module = module
        self._namespace = namespace
        self._terms = terms
        self._keys: dict[int, tuple[object, ...]] = {}

    def name(self, number: int) -> Name:
        """A name with the placeholder for the namespace."""
        found = self._module.terms.names[number]
        return tuple(_NAMESPACE if part == self._namespace and self._namespace else part for part in found)

    def by_content(self, number: int) -> bool:
        """Whether a constant goes by what it says."""
        return number in self._module and self._module.kind(number) in ("def", "theorem")

    def meaning(self, number: int) -> set[int]:
        """The constants that a declaration's meaning depends on: not those of a proof."""
        if number not in self._module:
            return set()
        found = self._module.declaration(number)
        roots = [found.type, *found.sides]
        if found.value is not None and found.kind != "theorem":
            roots.append(found.value)
        return {name for root in roots for name in self._module.terms.constants(root)} | set(found.related)

    def form(self, number: int) -> Form:
        """What a declaration says, the proof of a theorem apart; `_UNKNOWN` for what the statement's terms, once
        frozen, cannot say."""
        for inner in self.meaning(number):
            self._key(inner)
        return self._form(number)

    def _key(self, number: int) -> tuple[object, ...]:
        """What stands for a constant: its name, or what it says.

        Raises:
            _RefusedError: it rests on itself.
        """
        todo = [number]
        opened: set[int] = set()
        while todo:
            here = todo[-1]
            if here in self._keys:
                todo.pop()
            elif not self.by_content(here):
                self._keys[here] = self.name(here)
            elif here not in opened:
                opened.add(here)
                todo += [inner for inner in self.meaning(here) if inner not in self._keys]
            else:
                if not self._keys.keys() >= self.meaning(here):
                    raise _RefusedError(f"{_shown(self._module.terms.names[here])} rests on itself")
                self._keys[here] = (_CONTENT, *self._form(here))
        return self._keys[number]

    def _form(self, number: int) -> Form:
        found = self._module.declaration(number)
        value = None if found.kind == "theorem" else found.value
        try:
            translate = self._translation(found)
            terms = tuple(translate(term) for term in (found.type, *found.sides))
            value = None if value is None else translate(value)
        except UnknownTermError:
            return _UNKNOWN
        related = tuple(self.name(name) for name in found.related)
        return found.kind, len(found.params), found.safe, terms, value, related, found.numbers

    def _translation(self, found: Declaration) -> Callable[[int], int]:
        terms = self._terms
        places = {name: place for place, name in enumerate(found.params)}

        def param(number: int) -> int:
            if number not in places:
                raise UnknownTermError("param")
            return terms.name((_PARAM, places[number]))

        def name(number: int) -> int:
            return terms.name(self._keys[number])

        return lambda term: translated(self._module.terms, term, terms, name, param)


def _find(reference: Module, namespace: str, name: Name) -> int:
    """The theorem that the reference states: in its namespace, or below one that its preamble opened there."""
    names = reference.terms.names
    rooted = name[:1] == ("_root_",)
    name = name[1:] if rooted else name
    inside = (namespace,) if namespace and not rooted else ()
    full = (*inside, *name)
    exact = [number for number in reference.names if written(names[number]) == full]
    opened = [
        number
        for number in reference.names
        if written(names[number])[: len(inside)] == inside and written(names[number])[-len(name) :] == name
    ]
    found = exact or [number for number in opened if reference.kind(number) == "theorem"]
    if len(found) != 1:
        raise StatementError(f"the statement's module holds {len(found)} theorems named {_shown(name)}")
    return found[0]


def _parse(written: str) -> Name:
    """A name as Lean writes it, with components like «a.b» where need be."""
    return tuple(match[1] if match[1] is not None else match[2] for match in _COMPONENT.finditer(written))


def _located(name: Name, namespace: str) -> Name:
    return tuple(namespace if part == _NAMESPACE else part for part in name)


def _shown(name: Name) -> str:
    return ".".join(str(part)[:MAX_SHOWN] for part in name[:MAX_SHOWN] if part != _NAMESPACE)[:MAX_SHOWN]


def _auxiliary(name: Name) -> bool:
    """Whether Lean, not an author, gave the name: it may belong to anything else."""
    return str(name[-1]).startswith(("match_", "_"))


def _imported_names(module: Module) -> frozenset[Name]:
    return frozenset(name for name, _ in module.imports)

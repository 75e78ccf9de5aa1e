"""Compiled modules, each read once for all of its members, and whether one member rests on another."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .batch import Compiled
from .expr import Name
from .module import Module, read
from .olean import OleanError

_DETAIL = re.compile(r"(.*\.)?(_[^.]*|match_\d+|match_\d+\.splitter)\Z", re.DOTALL)
"""How the names end of what Lean makes for itself, once for all that need the same. No search proposes these."""


class Reader:
    """Reads each module once: the members of a file share it. Not for several threads."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Mapping[str, bytes], Module | OleanError]] = {}
        self._borrowers: dict[int, set[str]] = {}

    def __call__(self, files: Mapping[str, bytes]) -> Module:
        """The module in these files.

        Raises:
            OleanError: there is none.
        """
        if id(files) not in self._known:
            try:
                module: Module | OleanError = read(files)
            except OleanError as error:
                module = error
            self._known[id(files)] = files, module
        found = self._known[id(files)][1]
        if isinstance(found, OleanError):
            raise found
        return found

    def borrows(self, result: Compiled) -> bool:
        """Whether anything in a member's namespace rests on another member's: searching tactics find those as well."""
        if result.module is None:
            return False
        key = id(result.module)
        try:
            if key not in self._borrowers:
                self._borrowers[key] = _borrowers(self(result.module), result.namespace.rpartition("_")[0] + "_")
        except OleanError:
            return False
        return result.namespace in self._borrowers[key]


def _borrowers(module: Module, prefix: str) -> set[str]:
    """The namespaces, all of which start with `prefix`, in which something rests on another of them."""
    found = set()
    for number in module.names:
        own = _namespace(module.terms.names[number], prefix)
        if own and own not in found:
            used = [module.terms.names[other] for other in module.uses(number)]
            others = {_namespace(name, prefix) for name in used if not _DETAIL.match(".".join(map(str, name)))}
            if others - {own, ""}:
                found.add(own)
    return found


def _namespace(name: Name, prefix: str) -> str:
    """The last component that is a member's namespace, or ""."""
    return next((part for part in reversed(name) if isinstance(part, str) and part.startswith(prefix)), "")

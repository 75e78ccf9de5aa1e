"""The first filter: what no honest proof needs, refused before Lean sees it; and what may share a file with whom.

It reads names outside comments and strings. Alone it proves nothing: what passes is compiled and certified. But where
no kernel replay exists it is part of the certificate, since a kernel check that was switched off leaves no other trace.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .lexer import Token, UnreadableError, tokens


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HOLES = _words("sorry admit sorryAx proof_wanted")
"""A proof that says so itself is no proof."""
CODE = _words(
    """run_cmd run_elab run_meta run_tac by_elab eval% elab elab_rules elab_stx% macro macro_rules macro_inline syntax
    declare_syntax_cat notation notation3 infix infixl infixr prefix postfix binder_predicate unif_hint simproc dsimproc
    simproc_decl dsimproc_decl builtin_simproc builtin_dsimproc run_simproc simproc_pattern% initialize
    builtin_initialize register_option register_builtin_option register_simp_attr register_label_attr
    register_tactic_tag register_error_explanation declare_simp_like_tactic declare_config_elab
    declare_command_config_elab include_str include_bytes unsafe partial implemented_by extern csimp native
    native_decide bv_decide bv_check polyrith meta app_delab app_unexpander delab"""
)
"""What runs code while Lean elaborates, teaches it syntax, or asks a compiler or another program."""
RULES = _words(
    """axiom opaque instance attribute scoped export prelude init_quot deriving_instance initialize_simps_projections
    declare_aesop_rule_sets add_aesop_rules erase_aesop_rules grind_pattern mk_iff_of_inductive_prop"""
)
"""What assumes, or changes what later text means."""
UNSOUND = _words(
    """sorryAx reduceBool reduceNat ofReduceBool ofReduceNat trustCompiler unsafeCast unsafeIO unsafeBaseIO
    unsafeEIO lcProof lcUnreachable lcAny"""
)
"""Last components of names that no proof may rest on."""
PROGRAMS = _words("Lean IO Elab Qq")
"""First components of names where programs about programs live."""
SCOPED = _words(
    """theorem lemma def abbrev example namespace section end universe noncomputable variable include omit private
    protected alias open set_option"""
)
"""Commands that a file of helper lemmas may use and still share a file: none outlives the namespace around it."""
LASTING = _words(
    "structure class inductive coinductive mutual deriving irreducible_def seal unseal recall add_decl_doc"
)
"""Commands that are honest in a file, but may leave instances or rules behind."""
HASH = _words(
    """eval eval! exit guard guard_msgs guard_expr print check check_failure check_tactic reduce synth where version
    with_exporting import_path assert_not_exists discr_tree_key discr_tree_simp_key find search loogle moogle
    leansearch min_imports lint html widget show_panel_widgets time count_heartbeats conv simp norm_num ring whnf whnfR
    unfold trans explode instances redundant_imports test sample minimize_imports help long_names string_diagram
    info_trees print_fun_prop_theorems push_discr_tree pull_discr_tree adaptation_note"""
)
"""Commands that start with `#`."""
ATTRIBUTES = _words(
    """simp ext norm_cast push_cast norm_num reducible inline refl symm trans gcongr mono positivity congr local
    elab_as_elim aesop safe norm apply forward simps fun_prop continuity measurability"""
)
"""Attributes that a helper lemma may have."""
GAPS = _words("sorry admit sorryAx lcProof axiom guard_msgs") | {
    "warn.sorry true",
    "warn.sorry false",
    "debug.byAsSorry true",
    "debug.skipKernelTC true",
}
"""Of what is refused, what leaves a gap in a proof and does no more: words, and options with their values."""
COMPILED = _words("def abbrev example alias where rec plausible slim_check")
"""What holds code that Lean compiles, or runs some. What was compiled from a gap may do anything once it is run."""
SEARCHES = _words("exact? apply? rw? rewrites? hint try? observe? observe says suggestions")
"""Tactics that look through all theorems at hand, other submissions' included."""
LIBRARIES = _words("Init Std Batteries Aesop Mathlib")
"""What a file may import besides what the data set's header imports."""
MAX_REC_DEPTH = 100_000
"""The most that `set_option maxRecDepth` may ask for."""

UNREADABLE = "unreadable"
"""How the reasons of texts begin that are not well-formed, which is no cheat."""
_BEFORE_BODY = _words("by where termination_by decreasing_by calc fun have show let")
"""Words that may start a line, besides commands."""


Company = Literal["honest", "searching", "gaps"]
"""Whom a text shares a file with: those that search find what others declare, and gaps are for nobody else to find."""


@dataclass(frozen=True, slots=True)
class Scan:
    """`refused`: why the filter refuses the text, or "". `contained`: nothing in it can reach beyond a namespace."""

    refused: str
    contained: bool
    company: Company = "honest"


def scan_proof(text: str, heartbeats: int) -> Scan:
    """Scan what follows `:=`: one term, tactic blocks included, and no command. `heartbeats` is the most that
    `set_option maxHeartbeats` may ask for."""
    try:
        found = tokens(text)
    except UnreadableError as error:
        return Scan(f"{UNREADABLE}: {error}", False)
    commands = (SCOPED | LASTING | {"local", "import", "module"}) - {"open", "set_option"}
    refused = "" if found else f"{UNREADABLE}: empty"
    refused = refused or _refusal(found, heartbeats, commands) or _open_command(found) or _attribute(found, frozenset())
    if refused:
        return Scan(refused, bool(found) and _only_gaps(f":= {text}", heartbeats), "gaps")
    return Scan("", True, _company(found))


def scan_file(text: str, heartbeats: int, imports: Sequence[str] = ()) -> Scan:
    """Scan a whole file, which may declare helper lemmas and definitions; `imports` are those of the data set."""
    try:
        found = tokens(text)
    except UnreadableError as error:
        return Scan(f"{UNREADABLE}: {error}", False)
    count = _import_count(found)
    refused = ""
    for token in found[1 : 2 * count : 2]:
        if token.text not in imports and token.text.split(".")[0] not in LIBRARIES:
            refused = refused or f"import {token.text}"
    body = found[2 * count :]
    refused = refused or _refusal(body, heartbeats, frozenset({"import", "module"})) or _attribute(body, ATTRIBUTES)
    if refused:
        return Scan(refused, not count and _only_gaps(text, heartbeats), "gaps")
    return Scan("", _stays_inside(text, body), _company(body))


def imports_of(text: str) -> tuple[tuple[str, ...], int]:
    """The modules that a file imports, and where its body starts (characters).

    Raises:
        UnreadableError: see `lexer.tokens`.
    """
    found = tokens(text)
    count = _import_count(found)
    last = found[2 * count - 1] if count else None
    return tuple(token.text for token in found[1 : 2 * count : 2]), last.start + len(last.text) if last else 0


def _import_count(found: Sequence[Token]) -> int:
    index = 0
    while index + 1 < len(found) and found[index].text == "import" and found[index + 1].kind == "name":
        index += 2
    return index // 2


def _company(found: Sequence[Token]) -> Company:
    return "searching" if any(token.text in SEARCHES for token in found) else "honest"


def _only_gaps(text: str, heartbeats: int) -> bool:
    """Whether a refused text leaves gaps in its own proofs, runs nothing, and reaches nothing outside its namespace.

    A tactic's option `(name := …)` is run while Lean elaborates, and so is whatever definition is in it.
    """
    found = tokens(text)
    texts = [token.text for token in found]
    options = any(
        token.kind == "name" and texts[i - 1] == "(" and texts[i + 1 : i + 3] == [":", "="]
        for i, token in enumerate(found)
    )
    if options or not COMPILED.isdisjoint(texts) or _attribute(found, frozenset()):
        return False
    return not _refusal(found, heartbeats, frozenset({"import", "module"}), GAPS) and _stays_inside(text, found, GAPS)


def _refusal(
    found: Sequence[Token], heartbeats: int, commands: frozenset[str], granted: frozenset[str] = frozenset()
) -> str:
    """Why these tokens are refused, or ""; what is `granted` is no reason."""
    words = (HOLES | CODE | RULES | commands) - granted
    opened = False
    for index, token in enumerate(found):
        word, after = token.text, [later.text for later in found[index + 1 : index + 3]]
        inner = set(re.findall(r"[\w!%]+", word[word.find("{") :])) if token.kind == "string" and "{" in word else set()
        if inner & words:  # some commands interpolate
            return f"{min(inner & words)} inside a string"
        if word == "`":
            return "a quotation"
        if word == "#" and after and after[0] in HASH - granted:
            return f"#{after[0]}"
        if token.kind != "name":
            opened = opened and word in "()→,"
            continue
        opened = word == "open" or (opened and word != "in")
        if word in words and not (word == "unsafe" and index and found[index - 1].text == "add"):
            return word
        parts = [part.strip("«»") for part in word.removeprefix("_root_.").split(".")]
        if parts[-1] in UNSOUND - granted or (parts[0] in PROGRAMS and (opened or len(parts) > 1)):
            return word
        if word == "set_option" and " ".join(after) not in granted and not _allowed_option(after, heartbeats):
            return " ".join([word, *after])
    return ""


def _allowed_option(after: Sequence[str], heartbeats: int) -> bool:
    if len(after) < 2:
        return False
    name, value = after
    limit = {"maxHeartbeats": heartbeats, "maxRecDepth": MAX_REC_DEPTH}.get(name, 0)
    return value.isascii() and value.isdigit() and len(value) < 18 and 0 < int(value) <= limit


def _open_command(found: Sequence[Token]) -> str:
    """An `open` or `set_option` that is a command of its own, not `… in` a term or tactic."""
    for index, token in enumerate(found):
        if token.kind == "name" and token.text in ("open", "set_option"):
            rest = found[index + 1 : index + 40]
            end = next((i for i, later in enumerate(rest) if later.text == "in"), len(rest))
            kinds = {"open": ("name",), "set_option": ("name", "number")}[token.text]
            if end == len(rest) or any(later.kind not in kinds and later.text not in "()→," for later in rest[:end]):
                return token.text
    return ""


def _attribute(found: Sequence[Token], allowed: frozenset[str]) -> str:
    for index, token in enumerate(found):
        if token.text != "@" or [later.text for later in found[index + 1 : index + 2]] != ["["]:
            continue
        depth = 0
        for inner in found[index + 1 :]:
            depth += (inner.text == "[") - (inner.text == "]")
            if not depth:
                break
            if inner.kind == "name" and inner.text not in allowed:
                return f"@[{inner.text}]"
    return ""


def _stays_inside(text: str, found: Sequence[Token], granted: frozenset[str] = frozenset()) -> bool:
    """Whether a file leaves no name, rule or open scope behind once the namespace around it ends. Lines may start with
    what is `granted`."""
    depth = 0
    for index, token in enumerate(found):
        word = token.text
        # A line that starts with some library's own command: nobody here knows what it leaves behind.
        starts_line = token.kind == "name" and (token.start == 0 or text[token.start - 1] == "\n")
        unknown = starts_line and word not in SCOPED | _BEFORE_BODY | granted
        attribute = word == "@" and [later.text for later in found[index + 1 : index + 2]] == ["["]
        if unknown or attribute or word in LASTING or "_root_" in word:
            return False
        depth += (word in ("namespace", "section")) - (word == "end")
        if depth < 0:
            return False
    return depth == 0

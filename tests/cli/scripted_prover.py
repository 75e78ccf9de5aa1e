"""A command that is called like `lean` and believes every proof but those with the word `wrong` in them.

Its modules are real ones, written by the file that its first argument names: each theorem of a sealed member as a
theorem without axioms, of a type that only its name decides.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any


def say(severity: str, row: int, data: str) -> None:
    print(json.dumps({"severity": severity, "pos": {"line": row, "column": 0}, "data": data}), flush=True)


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("writer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Writer()


def main(writer_path: str, *arguments: str) -> int:
    if arguments[-1].startswith("--print"):
        print(Path(__file__).parent)
        return 0
    writer, namespace, failed = load(writer_path), "", False
    for row, line in enumerate(Path(arguments[-1]).read_text().splitlines(), 1):
        if printed := re.match(r'#print "(.*)"', line):
            say("information", row, printed.group(1))
        elif opened := re.match(r"namespace (\S+)", line):
            namespace = opened.group(1)
        elif stated := re.match(r"theorem (\w+)", line):
            writer.theorem(f"{namespace}.{stated.group(1)}", writer.sort(), writer.sort())
        if "wrong" in line.split():
            failed = True
            say("error", row, "unsolved goals")
    if failed:
        return 1
    Path(arguments[arguments.index("-o") + 1]).write_bytes(writer.finish(imports=()))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

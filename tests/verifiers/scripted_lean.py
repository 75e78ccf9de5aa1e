"""A command that is called like `lean` and does as a few words in the submissions say: for tests of what is around it.

`theorem x : … := <word> …` with a word of: `fine`, `wrong` (an error), `slow`, `hungry`, `crash`, `late`, `limit`
(Lean's own), `leak` (breaks its own seal), `shout` (a line that is no message), `nomodule`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path


def say(severity: str, row: int, data: str) -> None:
    message = {"severity": severity, "pos": {"line": row, "column": 0}, "data": data, "fileName": "x"}
    print(json.dumps(message), flush=True)


def eat() -> None:
    try:
        _ = [bytearray(10**7) for _ in range(1000)]
    except MemoryError:
        sys.exit("INTERNAL PANIC: out of memory")


def main(arguments: list[str]) -> int:
    if arguments[-1] == "--version":
        print("Lean (version 4.24.0, x86_64-unknown-linux-gnu, commit 797c613, Release)")
        return 0
    if arguments[-1].startswith("--print"):
        print(Path(__file__).parent)
        return 0
    source = Path(arguments[-1]).read_text()
    output = Path(arguments[arguments.index("-o") + 1])
    failed = False
    for row, line in enumerate(source.splitlines(), 1):
        if printed := re.match(r'#print "(.*)"', line):
            say("information", row, printed.group(1))
        words = line.split()
        for word in words:
            if word == "wrong":
                failed = True
                say("error", row, "wrong: unsolved goals")
            elif word == "limit":
                failed = True
                say("error", row, "(deterministic) timeout at `whnf`, maximum number of heartbeats has been reached")
            elif word == "slow":
                time.sleep(600)
            elif word == "late":
                time.sleep(0.6)
            elif word == "hungry":
                eat()
            elif word == "crash":
                os.abort()
            elif word == "shout":
                print('{"severity": "error"', "\x00", '{"env": 0}', flush=True)
        if words[:1] == ["end"] and "leak" in source.splitlines()[row - 4 : row]:
            failed = True
            say("error", row, "invalid 'end', name mismatch")
    if failed:
        return 1
    if "nomodule" not in source:
        output.write_text("module")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

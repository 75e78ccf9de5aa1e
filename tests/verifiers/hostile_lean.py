"""A hostile command in Lean's place: what it does is said by `mode: …` in the source that it is to compile.

Its second argument is a folder with the module of a true theorem of the same name, to be forged from.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path


def say(severity: str, row: int, data: str) -> None:
    print(json.dumps({"severity": severity, "pos": {"line": row, "column": 0}, "data": data}), flush=True)


def spawn(marker: str) -> None:
    """Leave a process behind that has left its group and its session."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", f"import time; time.sleep(600) #{marker}"])
        os._exit(0)
    os.wait()


def main(folder: Path, arguments: list[str]) -> int:
    if arguments[-1].startswith("--print"):
        print(os.environ.get("LEAN_TEST_LIBRARY", ""))
        return 0
    source = Path(arguments[-1]).read_text()
    output = Path(arguments[arguments.index("-o") + 1])
    mode, argument = re.findall(r"mode: (\S+) ?(\S*)", source)[0]
    if mode == "silent":
        time.sleep(600)
    for row, line in enumerate(source.splitlines(), 1):
        if printed := re.match(r'#print "(.*)"', line):
            say("information", row, printed.group(1))
    (namespace,) = set(re.findall(r"^namespace (\S+)$", source, re.MULTILINE))
    parts = {path.name: path.read_bytes() for path in folder.glob("Submission.olean*")}
    (other,) = set(re.findall(rb"U[0-9a-f]{16}_0", b"".join(parts.values())))
    renamed = {name: data.replace(other, namespace.encode()) for name, data in parts.items()}
    left = {
        "other": lambda: parts,
        "cut": lambda: {name: data[: len(data) // 2] for name, data in renamed.items()},
        "altered": lambda: {name: data[:4000] + bytes(40) + data[4040:] for name, data in renamed.items()},
        "version": lambda: {name: data[:5] + b"\x09" + data[6:] for name, data in renamed.items()},
        "noise": lambda: {"Submission.olean": b"olean\x02" + os.urandom(5000)},
        "nothing": dict,
        "link": dict,
        "huge": dict,
    }.get(mode, lambda: renamed)()
    misbehave(mode, argument, folder, output)
    for name, data in left.items():
        with suppress(OSError):
            output.with_name(name).write_bytes(data)
    return 0


def misbehave(mode: str, argument: str, folder: Path, output: Path) -> None:
    """What it does besides leaving a module."""
    if mode == "link":
        output.symlink_to(folder / "Submission.olean")
    elif mode == "huge":
        with suppress(OSError), open(output, "wb") as file:
            file.truncate(10**12)
    elif mode == "fill":
        with suppress(OSError), open("fill", "wb") as file:
            while True:
                file.write(bytes(2**20))
    elif mode == "outside":
        for place in (Path(argument), Path.home() / Path(argument).name, folder / "Submission.olean"):
            with suppress(OSError):
                place.write_text("x")
    elif mode == "connect":
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", int(argument)), timeout=2)
    elif mode in ("fork", "endless"):
        spawn(argument)
        if mode == "endless":
            time.sleep(600)
    elif mode == "forge":
        words = [{"end": "exit", "code": 0}, {"file": "Submission.olean", "size": 0}]
        for descriptor in range(3, 64):
            for word in words:
                with suppress(OSError):
                    os.write(descriptor, json.dumps(word).encode() + b"\n")
        say("information", 1, "'target' depends on axioms: [propext]")
        print(json.dumps({"outcome": "right", "reason": "proved"}), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

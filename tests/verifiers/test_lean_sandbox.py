"""The walls: a hostile command writes nowhere else, connects to nobody, and leaves nothing alive."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from underdog.verifiers.lean import sandbox
from underdog.verifiers.lean.sandbox import Confined, Ending, LateError, Limits

PYTHON = [sys.executable, "-I", "-S", "-c"]


def run(code: str, limits: Limits | None = None, seconds: float = 30.0, **more: object) -> tuple[list[str], Ending]:
    process = Confined([*PYTHON, code], limits or Limits(), **more)  # type: ignore[arg-type]
    process.end_input()
    deadline = time.monotonic() + seconds
    lines = []
    while (line := process.line(deadline)) is not None:
        lines.append(line.decode())
    return lines, process.ending(deadline)


def alive(marker: str) -> list[str]:
    """Processes whose command line holds `marker`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_files_go_in_and_out() -> None:
    code = "print(open('in.txt').read()); open('x.olean', 'wb').write(b'abc'); open('other', 'w').write('x')"
    lines, ending = run(code, files={"in.txt": "é"}, collect=["*.olean"])
    assert lines == ["é"]
    assert (ending.cause, ending.code, ending.files) == ("exit", 0, {"x.olean": b"abc"})


def test_links_and_pipes_are_not_handed_over() -> None:
    code = "import os; os.symlink('/etc/passwd', 'a.olean'); os.mkfifo('b.olean'); os.mkdir('c.olean')"
    assert run(code, collect=["*.olean"])[1].files == {}


def test_files_that_claim_more_than_the_folder_holds_are_not_handed_over() -> None:
    code = (
        "import os\nfor name in 'abc':\n    os.truncate(os.open(name + '.olean', os.O_CREAT | os.O_RDWR), 12 * 2**20)"
    )
    files = run(code, Limits(folder_mib=16), collect=["*.olean"])[1].files
    assert files is not None
    assert list(files) == ["a.olean"]


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    places = [str(tmp_path / "x"), str(Path.home() / "underdog-outside"), "/tmp/underdog-outside", "/dev/shm/outside"]
    code = f"""
for place in {places!r}:
    try:
        open(place, 'w').write('x')
        print('wrote', place)
    except OSError:
        print('refused')
"""
    lines, _ = run(code)
    assert lines == ["refused"] * len(places)
    assert not any(Path(place).exists() for place in places)


def test_no_connection_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        code = f"""
import socket
places = [('127.0.0.1', {server.getsockname()[1]}), {str(tmp_path / "socket")!r}]
for family, address in zip((socket.AF_INET, socket.AF_UNIX), places):
    try:
        socket.socket(family).connect(address)
        print('connected')
    except OSError:
        print('refused')
"""
        assert run(code)[0] == ["refused", "refused"]


def test_secrets_of_the_environment_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("LEAN_PATH", "/somewhere")
    lines, _ = run(f"import os; print(dict(os.environ)); print(open('/proc/{os.getpid()}/environ').read())")
    assert "secret" not in "".join(lines)
    assert "/somewhere" in lines[0]


@pytest.mark.parametrize("how", ["ends", "is killed", "is dropped"])
def test_nothing_survives_a_double_fork(how: str) -> None:
    marker = f"underdog-survivor-{os.getpid()}-{how[:4]}"
    code = f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600) #{marker}'])
    os._exit(0)
os.wait()
print('ready', flush=True)
if {how != "ends"}:
    time.sleep(600)
"""
    process = Confined([*PYTHON, code], Limits())
    process.end_input()
    assert process.line(time.monotonic() + 30) == b"ready"
    if how == "ends":
        process.ending(time.monotonic() + 30)
    elif how == "is killed":
        process.close()
    else:
        time.sleep(0.3)
        assert alive(marker)
        process.kill()
        process.close()
    assert alive(marker) == []


def test_everything_dies_with_the_trainer(tmp_path: Path) -> None:
    marker = f"underdog-orphan-{os.getpid()}"
    script = f"""
import os, time
from underdog.verifiers.lean.sandbox import Confined, Limits
process = Confined({[*PYTHON, f"import time; print(1, flush=True); time.sleep(600) #{marker}"]!r}, Limits())
process.line(time.monotonic() + 30)
print(process._folder, flush=True)
time.sleep(600)
"""
    trainer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=tmp_path)
    assert trainer.stdout is not None
    folder = trainer.stdout.readline().decode().strip()
    assert Path(folder).exists()
    assert alive(marker)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    trainer.stdout.close()
    deadline = time.monotonic() + 10
    while (alive(marker) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(marker) == []
    assert not Path(folder).exists()


def test_memory_of_one_and_of_many_is_limited() -> None:
    one = run("x = [b'x' * (10**7 + i) for i in range(200)]", Limits(memory_mib=300))[1]
    assert "MemoryError" in one.errors or one.cause == "memory"
    many = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        x = bytearray(80 * 2**20)
        time.sleep(600)
time.sleep(600)
"""
    assert run(many, Limits(memory_mib=300))[1].cause == "memory"


def test_a_full_folder_is_the_commands_own_trouble() -> None:
    code = """
try:
    with open('big', 'wb') as file:
        for _ in range(100):
            file.write(bytes(2**20))
except OSError as error:
    print(error.errno)
"""
    assert run(code, Limits(folder_mib=16))[0] in (["28"], ["27"])


def test_a_fork_bomb_ends() -> None:
    ending = run("import os, time\nwhile True:\n    os.fork() or time.sleep(600)")[1]
    assert ending.cause in ("processes", "exit", "memory")


def test_endless_and_late_output() -> None:
    process = Confined([*PYTHON, "import time; time.sleep(600)"], Limits())
    with pytest.raises(LateError):
        process.line(time.monotonic() + 0.3)
    process.close()
    lines, ending = run("import sys\nwhile True: sys.stdout.write('x' * 65536)")
    assert ending.cause == "output"
    assert lines == []


def test_processor_time_is_limited() -> None:
    assert run("while True: pass", Limits(cpu_seconds=1))[1].code == -signal.SIGXCPU


def test_a_command_that_is_not_there() -> None:
    process = Confined(["/no/such/lean"], Limits())
    ending = process.ending(time.monotonic() + 30)
    assert ending.cause == "unstarted"
    assert "No such file" in ending.errors


def test_someone_else_kills_it() -> None:
    process = Confined([*PYTHON, "import time; print(1, flush=True); time.sleep(600)"], Limits())
    process.line(time.monotonic() + 30)
    os.kill(process.pid, signal.SIGKILL)
    assert process.ending(time.monotonic() + 30).cause == "outside"


def test_isolation_is_stated() -> None:
    walls = sandbox.isolation()
    assert walls is not None
    for name in ("namespaces", "files", "landlock", "seccomp"):
        assert name in str(walls)
    refused = sandbox.Isolation(False, False, False, True)
    assert not refused.complete
    assert "refused here: namespaces, files, landlock" in str(refused)


def test_without_namespaces_the_other_walls_stand(tmp_path: Path) -> None:
    """Where a kernel refuses namespaces: inside a command that has none of its own to give."""
    program = Path(sandbox.__file__).with_name("confine.py")
    weak = tmp_path / "confine.py"
    text = program.read_text()
    assert "LIBC.unshare(NEW_NAMESPACES) < 0" in text
    weak.write_text(text.replace("LIBC.unshare(NEW_NAMESPACES) < 0", "True"))
    marker = f"underdog-weak-{os.getpid()}"
    code = f"""
import os, socket, sys
try:
    open({str(tmp_path / "x")!r}, 'w'); print('wrote')
except OSError:
    print('refused')
try:
    socket.socket(); print('socket')
except OSError:
    print('refused')
open('mine', 'w').write('x')
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', 'import time; time.sleep(600) #{marker}'])
    os._exit(0)
os.wait()
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "__file__", str(tmp_path / "sandbox.py"))
        process = Confined([*PYTHON, code], Limits(), collect=["mine"])
        process.end_input()
        lines = [process.line(time.monotonic() + 30) for _ in range(2)]
        ending = process.ending(time.monotonic() + 30)
    assert process.isolation is not None
    assert not process.isolation.namespaces
    assert lines[1] == b"refused"
    if process.isolation.landlock:
        assert lines[0] == b"refused"
    assert ending.files == {"mine": b"x"}
    assert alive(marker) == []

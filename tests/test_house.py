"""The house keeps its shape: which room may import which, no `__init__.py` below the root, and what the wheel holds."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from underdog.parts import ROOMS, find, names

ROOT = Path(__file__).resolve().parents[1]
ROOMS_OF_THE_HOUSE = ("kernels", "verifiers", "rollouts", "rewards", "rl")
MAY_IMPORT = {
    "records": set(),
    "parts": set(),
    "kernels": {"kernels"},
    "verifiers": {"verifiers", "records", "parts", "kernels"},
    "rollouts": {"rollouts", "records", "parts", "kernels"},
    "rewards": {"rewards", "records", "parts", "kernels"},
    "rl": {"rl", "verifiers", "rollouts", "rewards", "records", "parts", "kernels"},
}
HEAVY = {"torch", "transformers", "peft", "datasets", "vllm", "ray", "trl", "lean_dojo"}


def sources() -> list[Path]:
    inside = [path for room in ROOMS_OF_THE_HOUSE for path in sorted((ROOT / room).rglob("*.py"))]
    return [ROOT / "records.py", ROOT / "parts.py", *inside]


def imported_rooms(path: Path) -> set[str]:
    """First folders below the root that a file imports, by relative imports or as underdog.…"""
    package = list(path.relative_to(ROOT).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level]
            target = base + (node.module.split(".") if node.module else [])
            found |= {target[0]} if target else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("underdog"):
            found.add("underdog, absolute")
        elif isinstance(node, ast.Import):
            found |= {"underdog, absolute" for alias in node.names if alias.name.split(".")[0] == "underdog"}
    return found


def heavy_at_module_level(path: Path) -> set[str]:
    """Heavy packages that importing a file imports; imports for types alone do not count."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found & HEAVY


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert imported_rooms(path) <= MAY_IMPORT[room]


def test_no_folder_below_the_root_is_a_regular_package() -> None:
    # `kernels` and `verifiers` are other people's packages too: with an __init__.py, ours would hide theirs.
    below = [path for room in (*ROOMS_OF_THE_HOUSE, "recipes", "tests") for path in (ROOT / room).rglob("__init__.py")]
    assert below == []


@pytest.mark.parametrize("kind", ROOMS)
def test_a_name_in_a_recipe_is_a_file_without_heavy_imports(kind: str) -> None:
    folder = ROOT / Path(*ROOMS[kind].split("."))
    assert names(kind), f"no {kind} stands in {folder}"
    for name in names(kind):
        file = folder / f"{name}.py" if (folder / f"{name}.py").is_file() else folder / name / f"{name}.py"
        module = ".".join(("underdog", *file.relative_to(ROOT).with_suffix("").parts))
        assert find(kind, name).__module__ == module
        assert heavy_at_module_level(file) == set()


def test_every_option_says_what_it_is() -> None:
    for kind in ROOMS:
        for name in names(kind):
            for option, field in find(kind, name).model_fields.items():
                assert field.description, f"{kind} {name}: the option {option} has no docstring"


def test_the_loop_is_one_page_that_names_no_method() -> None:
    text = (ROOT / "rl" / "loop.py").read_text()
    assert text.count("\n") < 250
    methods = {name for kind in ("algorithm", "engine", "verifier", "reward", "shaping") for name in names(kind)}
    # These are English words before they are names of methods.
    methods -= {"none", "format", "length", "math"}
    assert not methods & set(re.findall(r"[a-z_]+", text.lower()))


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [name for name in listed.split() if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]
    source = tmp_path / "source"  # a copy, so that nothing of an earlier build is taken along
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    rooms = (*ROOMS_OF_THE_HOUSE, "recipes")
    expected = {f"underdog/{name}" for name in tracked if name.split("/")[0] in rooms}
    expected |= {f"underdog/{name}" for name in ("__init__.py", "parts.py", "records.py")}
    assert {name for name in held if not name.endswith(".md")} == {n for n in expected if not n.endswith(".md")}


def test_light_parts_need_no_torch(tmp_path: Path) -> None:
    script = """
import sys
for name in ("torch", "transformers", "peft", "datasets", "safetensors", "tokenizers"):
    sys.modules[name] = None
import underdog
from underdog.parts import ROOMS, find, names
for kind in ROOMS:
    for name in names(kind):
        find(kind, name)
from underdog.rl.config import Config, read_recipe, recipe_names, resolve
Config.model_json_schema()
for recipe in recipe_names():
    resolve(read_recipe(recipe)[1])
import underdog.rl.runs.report.build
import underdog.rl.cli.main
from underdog.records import Problem
assert find("verifier", "math")().judge(Problem("1", "1+1=", "2"), r"\\boxed{2}").outcome == "right"
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)

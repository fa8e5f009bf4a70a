# SPDX-License-Identifier: Apache-2.0
"""The shape of the tree: sizes, names, import direction, copies that must stay equal."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(p.parent for p in ROOT.glob("*/src/*/__init__.py")) + sorted(
    p.parent for p in ROOT.glob("plugins/*/src/*/__init__.py")
)
DISTRIBUTIONS = [ROOT / "core", *sorted(p.parent for p in ROOT.glob("plugins/*/pyproject.toml"))]
MODULES = sorted(module for package in PACKAGES for module in package.rglob("*.py"))
C_FILES = sorted([*ROOT.glob("**/csrc/*.[ch]"), *ROOT.glob("core/include/*.h")])
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

# Core's floors, bottom up; a module imports only from its own floor or from below.
FLOORS = [
    {"errors", "permission", "request", "native", "_native", "schema"}
    | {"entrypoints", "activation", "trace", "pattern", "standardstreams"},
    {"node", "driver", "loop", "qmp", "sockets", "tenant", "access", "bridge", "inner", "fdset"}
    | {"declaration", "flags", "branches", "identifier", "imagework", "filename", "probe"}
    | {"breakpoints", "repairs", "childlist", "filterdriver", "creation", "machinestate"},
    {"graph", "changes", "root", "carrier", "info", "imagename", "bitmaps", "dirtybitmap"}
    | {"naming", "imageinfo", "snapshots", "corruption", "copying", "runner", "bencher"},
    {"job", "export", "objects", "iothread"},
    {"plugins"},
    {"yard", "image", "blocking", "newimage", "newoverlay"},
    {"testing"},
    {"commands", "chardev"},
    {"daemon", "cli"},
]


def generated(path: Path) -> bool:
    return path.name == "_native.c" or "build" in path.relative_to(ROOT).parts


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_files_have_one_subject_and_a_licence(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert len(text.splitlines()) <= 400
    assert path.stem not in FORBIDDEN_NAMES


@pytest.mark.parametrize(
    "path", [p for p in C_FILES if not generated(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_c_files_have_one_subject_and_a_licence(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("/* SPDX-License-Identifier: Apache-2.0 */\n")
    assert len(text.splitlines()) <= 500
    assert path.stem not in FORBIDDEN_NAMES


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_stay_small(path: Path) -> None:
    long = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and (body[-1].end_lineno or 0) - body[0].lineno >= 60:
                long.append(node.name)
    assert not long


def test_packages_have_one_level_of_folders() -> None:
    deep = [p for package in PACKAGES for p in package.glob("*/*/*.py")]
    assert not deep


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_init_only_re_exports(package: Path) -> None:
    for init in package.rglob("__init__.py"):
        for node in ast.parse(init.read_text()).body:
            assert not isinstance(node, ast.ClassDef), f"{init}: {node.name}"
            if isinstance(node, ast.FunctionDef):
                assert node.name == "__getattr__", f"{init}: {node.name}"


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def typing_only(path: Path) -> set[str]:
    """Imports under ``if TYPE_CHECKING``, which never run."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                if isinstance(child, ast.ImportFrom) and child.module:
                    names |= {child.module}
                    names |= {f"{child.module}.{alias.name}" for alias in child.names}
    return names


def floor_of(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "blockyard" or len(parts) < 2:
        return None
    return next((i for i, floor in enumerate(FLOORS) if parts[1] in floor), None)


CORE = ROOT / "core/src/blockyard"
CORE_MODULES = [m for m in MODULES if m.is_relative_to(CORE) and m != CORE / "__init__.py"]


@pytest.mark.parametrize("path", CORE_MODULES, ids=lambda p: str(p.relative_to(CORE)))
def test_imports_run_down_only(path: Path) -> None:
    module = "blockyard." + ".".join(path.relative_to(CORE).with_suffix("").parts)
    mine = floor_of(module)
    assert mine is not None, f"{module} stands on no floor"
    up = [name for name in imports_of(path) - typing_only(path) if (floor_of(name) or 0) > mine]
    assert not up


@pytest.mark.parametrize("path", CORE_MODULES, ids=lambda p: str(p.relative_to(CORE)))
def test_core_imports_no_plugin(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.startswith("blockyard_")]


@pytest.mark.parametrize("dist", DISTRIBUTIONS[1:], ids=lambda p: p.name)
def test_plugins_import_only_what_their_pyproject_names(dist: Path) -> None:
    project = tomllib.loads((dist / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=~\[ ]", d)[0].replace("-", "_") for d in project["dependencies"]}
    own = "blockyard_" + dist.name.replace("-", "_")
    for path in dist.glob("src/**/*.py"):
        used = {name.split(".")[0] for name in imports_of(path) if name.startswith("blockyard")}
        assert used <= wanted | {own}, path


@pytest.mark.parametrize("dist", DISTRIBUTIONS, ids=lambda p: p.name)
def test_every_distribution_has_its_own_tests_and_readme(dist: Path) -> None:
    assert list(dist.glob("tests/test_*.py"))
    assert len((dist / "README.md").read_text()) > 200
    project = tomllib.loads((dist / "pyproject.toml").read_text())["project"]
    assert project["name"] == ("blockyard" if dist.name == "core" else f"blockyard-{dist.name}")


def test_plugins_carry_the_same_header_as_core() -> None:
    header = (ROOT / "core/include/blockyard.h").read_bytes()
    copies = list(ROOT.glob("plugins/*/csrc/blockyard.h"))
    assert copies
    assert [c for c in copies if c.read_bytes() != header] == []


def test_formats_carry_the_same_cipher_header() -> None:
    copies = list(ROOT.glob("plugins/*/csrc/crypto.h"))
    assert ROOT / "plugins/formats-luks/csrc/crypto.h" in copies
    assert len({copy.read_bytes() for copy in copies}) == 1


def test_c_never_includes_python() -> None:
    assert not [p for p in C_FILES if not generated(p) and "Python.h" in p.read_text()]


def test_every_distribution_has_a_tox_environment() -> None:
    tox = (ROOT / "tox.ini").read_text()
    for dist in DISTRIBUTIONS:
        assert re.search(rf"\b{re.escape(dist.name)}\b", tox), dist.name

"""The package as it is installed: quick to start, whole in a wheel, imports in one direction."""

import ast
import importlib
import pkgutil
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path
    for path in (ROOT / "valueflow").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)
BINARY = {".parquet", ".safetensors"}
LIGHT = {"typer", "rich", "pygments", "markdown_it", "mdurl", "shellingham", "annotated_doc"}

START = {
    "import": "import sys, valueflow",
    "--help": """
import contextlib, io, sys
from valueflow.cli.main import main
sys.argv = ["valueflow", "--help"]
shown = io.StringIO()
with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
    main()
assert "Usage: valueflow" in shown.getvalue(), shown.getvalue()
""",
}


def run_python(code):
    """What `code` prints, and the processor time in seconds, that of the interpreter included.

    Processor time, because other work on the machine stretches the other kind.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done.stdout, sum(after[:2]) - sum(before[:2])


@pytest.mark.parametrize("start", START)
def test_the_start_takes_less_than_half_a_second(start):
    assert min(run_python(START[start])[1] for _ in range(3)) < 0.5


@pytest.mark.parametrize("start", START)
def test_the_start_imports_nothing_heavy(start):
    bare = set(run_python("import sys; print(*sys.modules)")[0].split())
    loaded = set(run_python(START[start] + "\nprint(*sys.modules)")[0].split()) - bare
    assert "valueflow" in loaded
    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert foreign - {"valueflow"} <= LIGHT


def facades():
    """The packages whose names load the module behind them when they are asked for."""
    for path in FILES:
        if path.name == "__init__.py" and "facade(" in path.read_text(encoding="utf-8"):
            yield ".".join(path.parent.relative_to(ROOT).parts)


@pytest.mark.parametrize("name", list(facades()))
def test_no_name_of_a_package_is_that_of_a_submodule(name):
    """Importing the submodule would replace whatever else the name stands for."""
    package = importlib.import_module(name)
    submodules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    assert package.__all__ and submodules
    assert not submodules.intersection(package.__all__)


def test_imports_go_one_way():
    command = [Path(sysconfig.get_path("scripts")) / "lint-imports", "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def by_name(lines):
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def imported_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]


def test_whatever_is_imported_is_a_declared_dependency(project):
    declared = by_name([*project["dependencies"], *project["optional-dependencies"]["openai"]])
    sources = {path: set(imported_names(path)) for path in FILES if path.suffix == ".py"}
    distributions = packages_distributions()
    for path, names in sources.items():
        for name in names - sys.stdlib_module_names - {"valueflow"}:
            owners = {canonicalize_name(owner) for owner in distributions.get(name, [])}
            assert owners & declared.keys(), f"{path} imports {name}"


def test_every_direct_dependency_has_a_lower_bound_and_a_pin_above_it(project):
    lines = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lower = by_name(lines)
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = by_name(re.findall(r"^[^#\s].*$", text, flags=re.MULTILINE))
    assert pins.keys() == lower.keys()
    for name, pin in pins.items():
        ((pinned,), (bound,)) = pin.specifier, lower[name].specifier
        assert (pinned.operator, bound.operator) == ("==", ">="), name
        assert bound.contains(pinned.version), name


def test_every_file_is_utf8_or_of_a_known_binary_kind():
    for path in FILES:
        if path.suffix not in BINARY:
            path.read_text(encoding="utf-8")


def test_a_wheel_has_every_file_the_licence_and_the_command(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "valueflow", source / "valueflow", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        (entry_points,) = (name for name in names if name.endswith("/entry_points.txt"))
        assert b"valueflow = valueflow.cli.main:main" in opened.read(entry_points)
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == {path.relative_to(ROOT).as_posix() for path in FILES}

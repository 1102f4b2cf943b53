"""The architecture: the direction of imports, no import cycles, and light imports."""

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each package may import only itself and what is listed before it.
ORDER = (
    ("errors",),
    ("core",),
    ("description",),
    ("runtime",),
    ("transformer",),
    ("likelihoods", "posteriors"),
    ("priors",),
    ("data",),
    ("decoding",),
    ("vae",),
    ("gaussian_vae",),
    ("objectives",),
    ("nn",),
    ("spec",),
    ("composition",),
    ("registry",),
    ("training",),
    ("examples",),
    ("export",),
    ("interop",),
    ("evaluation",),
    ("recipes",),
    ("pretrained",),
    ("plots",),
    ("explore",),
    ("bench",),
    ("doctor",),
    ("testing",),
)
LEVEL = {package: level for level, packages in enumerate(ORDER) for package in packages}
NETWORKS = {
    *("errors", "core", "data", "vae", "gaussian_vae", "transformer"),
    *("posteriors", "priors", "likelihoods", "objectives", "nn"),
}
FOR_MODELS = NETWORKS | {"spec", "composition"}
# The methods of Run are shortcuts to functions of packages above it, which they import when they are called.
SHORTCUTS = {"training/run.py": {"evaluation", "export", "plots"}}
SOURCES = sorted((ROOT / "vaezoo").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Returns the packages and modules directly below vaezoo that a file imports, except for annotations alone."""
    packages = set()
    tree = ast.parse(path.read_text("utf-8"))
    for_annotations = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_annotations:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "vaezoo":
            packages |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vaezoo."):
            packages.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[2].split(".")[0] for alias in node.names if _is_ours(alias.name)}
    return packages


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == "vaezoo"


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(ROOT)) for p in SOURCES])
def test_imports_point_one_way(path):
    package = path.relative_to(ROOT / "vaezoo").parts[0].removesuffix(".py")
    if package == "__init__":
        return
    if package == "models":
        assert imports(path) <= FOR_MODELS
    elif package == "nn":
        assert imports(path) <= NETWORKS
    else:
        # A public name, as in `from vaezoo import train`, has no level: the library imports from modules.
        allowed = SHORTCUTS.get(path.relative_to(ROOT / "vaezoo").as_posix(), set())
        assert {p for p in imports(path) if LEVEL.get(p, len(ORDER)) > LEVEL[package]} <= allowed


def test_export_is_independent():
    used = set().union(*(imports(path) for path in (ROOT / "vaezoo" / "export").rglob("*.py")))
    assert not used & {"pretrained", "recipes", "evaluation"}


@pytest.mark.parametrize("package", ["training", "evaluation", "export", "runtime"])
def test_no_branch_on_models(package):
    """These packages know the contracts, and no posterior, prior or model. So they never ask for its class."""
    parts = [p for folder in ("posteriors", "priors", "models") for p in (ROOT / "vaezoo" / folder).rglob("*.py")]
    names = {
        node.name
        for path in (*parts, ROOT / "vaezoo" / "gaussian_vae.py", ROOT / "vaezoo" / "composition.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    } - {"Posterior", "Prior"}
    for path in (ROOT / "vaezoo" / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass", "type"):
                used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
                assert not used & names, f"{path.name}:{node.lineno}"


def test_the_library_does_without_the_command_line():
    """But for the progress of a training, which shows what the command line shows."""
    used = {
        path.relative_to(ROOT / "vaezoo").as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom) and "vaezoo_cli" in ast.unparse(node)
    }
    assert used == {"training/progress.py"}


def test_no_import_cycles():
    modules = find_modules()
    graph = {name: module_imports(path) & modules.keys() for name, path in modules.items()}
    assert len(graph) > 100 and "vaezoo.errors" in graph["vaezoo.core.atomic"]
    assert "tables" in graph["train_distributed"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        pytest.fail(f"import cycle: {' -> '.join(e.args[1])}")


def find_modules() -> dict[str, Path]:
    """Returns all modules by the names under which they import each other."""
    modules = {}
    for root, pattern in ((ROOT, "vaezoo/**/*.py"), (ROOT / "cli", "**/*.py"), (ROOT / "benchmarks", "*.py")):
        for path in root.glob(pattern):
            modules[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return modules


def module_imports(path: Path) -> set[str]:
    """Returns what a file imports when it is loaded: modules, and names in modules."""
    names = set()
    for node in loaded_statements(ast.parse(path.read_text("utf-8")).body):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def loaded_statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields the statements that run on import: not those of functions or under `if TYPE_CHECKING`."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for field in ("orelse",) if typing_only else ("body", "orelse", "handlers", "finalbody"):
            yield from loaded_statements(getattr(node, field, []))


def loaded_by(code: str) -> set[str]:
    """Returns the top-level modules that are loaded after `code` ran in a new interpreter."""
    script = f"{code}\nimport sys; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


ALL_COMMANDS = "from vaezoo_cli.main import COMMANDS, vaezoo; [vaezoo.get_command(None, name) for name in COMMANDS]"


@pytest.mark.parametrize("code", ["import vaezoo", pytest.param(ALL_COMMANDS, id="all commands")])
def test_importing_is_light(code):
    assert not {"torch", "torchvision", "onnx", "onnxruntime", "numpy", "rich", "filelock"} & loaded_by(code)


def test_runtime_distribution_is_closed():
    """What vaezoo-runtime takes from vaezoo loads nothing else of it, and no torch."""
    namespace = runpy.run_path(str(ROOT / "runtime" / "hatch_build.py"))
    taken = [name for name in namespace["MODULES"] if name.endswith(".py")]
    modules = {f"vaezoo.{name.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__") for name in taken}
    known = find_modules().keys() | {"torch"}
    for name in taken:
        assert module_imports(ROOT / "vaezoo" / name) & known <= modules | {"vaezoo"}, name
    rewritten = namespace["NAMES"].sub("vaezoo_runtime", (ROOT / "vaezoo/export/verify.py").read_text("utf-8"))
    assert "from vaezoo." not in rewritten and "from vaezoo_runtime.export.verify import child" in rewritten


def test_public_names_exist():
    import vaezoo

    assert [name for name in vaezoo.__all__ if getattr(vaezoo, name, None) is None] == []
    with pytest.raises(AttributeError):
        vaezoo.nothing  # noqa: B018

"""What holds of the code as a whole: import direction and light imports. `make check` looks for unsafe loading."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each part may import only what stands to its left, and itself.
ORDER = (
    ("errors",),
    ("core",),
    ("runtime",),
    ("likelihoods", "posteriors"),
    ("priors",),
    ("data",),
    ("vae",),
    ("objectives",),
    ("spec",),
    ("registry",),
    ("training",),
    ("export",),
    ("evaluation",),
    ("recipes",),
    ("pretrained",),
    ("bench",),
    ("doctor",),
    ("testing",),
)
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
FOR_MODELS = {"errors", "core", "data", "vae", "posteriors", "priors", "likelihoods", "objectives", "spec", "nn"}


def imports(path: Path) -> set[str]:
    """Returns the parts of vaezoo that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vaezoo."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "vaezoo":
            found |= {alias.name for alias in node.names} & RANK.keys()
    return found


SOURCES = sorted((ROOT / "vaezoo").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(ROOT)) for p in SOURCES])
def test_imports_point_one_way(path):
    part = path.relative_to(ROOT / "vaezoo").parts[0].removesuffix(".py")
    if part == "__init__":
        return
    if part == "models":
        assert imports(path) <= FOR_MODELS
    elif part == "nn":
        assert imports(path) <= FOR_MODELS - {"spec"}
    else:
        assert {p for p in imports(path) if RANK[p] > RANK[part]} == set()


def loaded_by(code: str) -> set[str]:
    """Returns the top-level modules that are loaded after `code` ran in a fresh interpreter."""
    script = f"{code}\nimport sys; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("code", ["import vaezoo", "import vaezoo_cli.main"])
def test_importing_is_light(code):
    assert not {"torch", "torchvision", "onnx", "onnxruntime", "numpy", "rich"} & loaded_by(code)


def test_every_public_name_can_be_had():
    import vaezoo

    assert [name for name in vaezoo.__all__ if getattr(vaezoo, name, None) is None] == []
    with pytest.raises(AttributeError):
        vaezoo.nothing  # noqa: B018

"""What a ModelSpec says about its model, read from the source. To import the model would import torch, in seconds."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from vaezoo.errors import one_line

PARTS = ("posterior", "prior", "objective")
MAX_IMPORTS = 4  # how often a name is followed into the module that it is imported from
MAX_BASES = 8  # classes whose defaults are read


class Description(NamedTuple):
    """What a list of models says about one.

    Attributes:
        summary: One line.
        reference: The paper.
        posterior: Name of the part q(z|x) by default, or words for a model of other parts. Empty: the source does not
            say it in a form that can be read.
        prior: The same of p(z).
        objective: The same of what training minimises.
    """

    summary: str = ""
    reference: str = ""
    posterior: str = ""
    prior: str = ""
    objective: str = ""


class Found(NamedTuple):
    """The value or the class that a name stands for, and the module in whose source it is."""

    module: str
    node: ast.AST


def read_description(module: str, name: str) -> Description:
    """Reads the description of a ModelSpec. What the source does not say in literals stays empty.

    Args:
        module: Where the ModelSpec is, or where it is imported.
        name: Its name there.
    """
    found = _find(module, name)
    if found is None or not isinstance(found.node, ast.Call):
        return Description()
    call, module = found.node, found.module
    keywords = _keywords(call)
    texts = {key: _text(keywords.get(key)) for key in ("summary", "reference")}
    config = keywords.get("config") or (call.args[0] if call.args else None)
    parts = {option: _part(module, config, option) for option in PARTS} | _literals(keywords.get("parts"))
    if "objective" not in keywords and _name(call.func) == "ModelSpec":
        parts["objective"] = parts["objective"] or "elbo"
    return Description(**{key: one_line(text) for key, text in {**texts, **parts}.items()})


def _part(module: str, config: ast.AST | None, option: str) -> str:
    """Returns the name of the part that a config, such as `MLPParts(prior=VampPart())`, has for an option."""
    if not isinstance(config, ast.Call):
        return ""
    values = [(module, _keywords(config).get(option))]
    values += [(where, _default(cls, option)) for where, cls in _classes(module, config.func)]
    where, value = next(((where, value) for where, value in values if value is not None), (module, None))
    if not isinstance(value, ast.Call):
        return ""
    names = (_text(_default(cls, "part")) for _, cls in _classes(where, value.func))
    return next(filter(None, names), "")


def _classes(module: str, name: ast.AST) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yields a class and its bases, each with its module, as far as their sources can be read."""
    waiting = [(module, name)]
    for _ in range(MAX_BASES):
        if not waiting:
            return
        module, name = waiting.pop(0)
        found = _find(module, _name(name))
        if found is not None and isinstance(found.node, ast.ClassDef):
            yield found.module, found.node
            waiting = [(found.module, base) for base in found.node.bases] + waiting


def _default(cls: ast.ClassDef, name: str) -> ast.expr | None:
    """Returns the value that a class gives one of its attributes, or None."""
    for node in cls.body:
        if (value := _assigned(node, name)) is not None:
            return value
    return None


def _assigned(node: ast.AST, name: str) -> ast.expr | None:
    """Returns the value of `name = value` or `name: type = value`, or None for another statement."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return None
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return node.value if any(_name(target) == name for target in targets) else None


def _find(module: str, name: str, imports: int = 0) -> Found | None:
    """Returns what a name of a module stands for. It may be imported from another module."""
    source = _source(module)
    tree = None if source is None else _parse(str(source), source.stat().st_mtime_ns)
    for node in () if tree is None or not name else tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Found(module, node)
        if (value := _assigned(node, name)) is not None:
            return Found(module, value)
        if isinstance(node, ast.ImportFrom) and imports < MAX_IMPORTS:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _find(_absolute(node, module, source), alias.name, imports + 1)
    return None


def _absolute(node: ast.ImportFrom, module: str, source: Path | None) -> str:
    """Returns the module that an import names, whose dots count from the module that it is in."""
    if not node.level:
        return node.module or ""
    package = module.split(".")
    if source is None or source.name != "__init__.py":
        package.pop()
    return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])


def _source(module: str) -> Path | None:
    """Returns the source file of a module, without importing it or its packages. None if there is none."""
    path, spec, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        try:
            specs = (finder.find_spec(name, path) for finder in sys.meta_path)
            spec = next((spec for spec in specs if spec is not None), None)
        except Exception:  # other packages' finders may raise anything
            return None
        if spec is None:
            return None
        path = spec.submodule_search_locations
    source = Path(spec.origin) if spec is not None and spec.origin else None
    return source if source is not None and source.suffix == ".py" and source.is_file() else None


@lru_cache(maxsize=256)
def _parse(source: str, changed: int) -> ast.Module | None:
    """Parses a file. Returns None if it is not Python. The time of its last change is part of the key."""
    try:
        return ast.parse(Path(source).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def _name(node: ast.AST) -> str:
    """Returns a name, or the last part of a dotted one. Empty for other expressions."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _text(node: ast.AST | None) -> str:
    """Returns the text of a string literal. Empty for other expressions."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _literals(node: ast.AST | None) -> dict[str, str]:
    """Returns the entries of a dict of string literals."""
    if not isinstance(node, ast.Dict):
        return {}
    pairs = zip(node.keys, node.values, strict=True)
    return {_text(key): _text(value) for key, value in pairs if _text(key) in PARTS and _text(value)}

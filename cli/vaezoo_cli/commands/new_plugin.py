"""vaezoo new-plugin NAME"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from vaezoo.errors import StorageError, VaezooError

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@click.command("new-plugin")
@click.argument("name")
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Folder of the package.  [default: ./vaezoo-NAME]")
def new_plugin(name: str, out: str | None) -> None:
    """Write the package of a new model.

    It has a pyproject.toml, a module with a small VAE, and a test that runs the conformance suite.
    """
    from vaezoo.core.atomic import atomic_dir
    from vaezoo.registry import list_models

    if not NAME.fullmatch(name):
        raise VaezooError(f"'{name}' is not a valid model name", "use lower-case words joined by '-', such as my-vae")
    if name in (r.name for r in list_models()):
        raise VaezooError(f"a model named '{name}' already exists", "choose another name")
    path = Path(out) if out else Path(f"vaezoo-{name}")
    if path.exists():
        raise StorageError(f"{path} already exists", "give another --out")
    values = {"NAME": name, "MODULE": f"vaezoo_{name.replace('-', '_')}"}
    with atomic_dir(path) as work:
        write_template(files("vaezoo_cli") / "template", work, values)
    click.echo(f"written  {path}/")
    click.echo(f"next     pip install -e {path}\n         vaezoo check {name}\n         vaezoo train {name}")


def write_template(source: Traversable, target: Path, values: dict[str, str]) -> None:
    """Copies a folder, and fills the placeholders in file names and texts."""
    for entry in source.iterdir():
        path = target / fill(entry.name.removesuffix(".txt"), values)
        if entry.is_dir():
            path.mkdir()
            write_template(entry, path, values)
        else:
            path.write_text(fill(entry.read_text("utf-8"), values), "utf-8")


def fill(text: str, values: dict[str, str]) -> str:
    """Replaces each placeholder `__NAME__` by its value."""
    for name, value in values.items():
        text = text.replace(f"__{name}__", value)
    return text

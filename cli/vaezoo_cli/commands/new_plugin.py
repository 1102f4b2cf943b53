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
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Where to  [default: ./vaezoo-NAME]")
def new_plugin(name: str, out: str | None) -> None:
    """Write a package with a model of your own.

    It holds a pyproject.toml, a module with a small VAE to start from, and a conformance test of three lines.
    """
    from vaezoo import list_models
    from vaezoo.core.atomic import atomic_dir

    if not NAME.fullmatch(name):
        raise VaezooError(f"'{name}' is no model name", "use lower-case words joined by '-', such as my-vae")
    if name in (r.name for r in list_models()):
        raise VaezooError(f"there is a model named '{name}' already", "choose another name")
    path = Path(out) if out else Path(f"vaezoo-{name}")
    if path.exists():
        raise StorageError(f"{path} is in the way: it exists", "give another --out")
    words = {"NAME": name, "MODULE": f"vaezoo_{name.replace('-', '_')}"}
    with atomic_dir(path) as work:
        write_template(files("vaezoo_cli") / "template", work, words)
    click.echo(f"written  {path}/")
    click.echo(f"next     pip install -e {path}\n         vaezoo check {name}\n         vaezoo train {name}")


def write_template(source: Traversable, target: Path, words: dict[str, str]) -> None:
    """Copies a folder, with the words in capitals replaced in file names and texts."""
    for entry in source.iterdir():
        path = target / fill(entry.name.removesuffix(".txt"), words)
        if entry.is_dir():
            path.mkdir()
            write_template(entry, path, words)
        else:
            path.write_text(fill(entry.read_text(), words))


def fill(text: str, words: dict[str, str]) -> str:
    """Replaces each `__WORD__` in a text."""
    for word, value in words.items():
        text = text.replace(f"__{word}__", value)
    return text

"""vaezoo new-plugin NAME"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from vaezoo.errors import StorageError, VaezooError

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class PluginKind:
    """A kind of package.

    Attributes:
        what: What the package adds.
        entry_points: Entry-point group -> the object that it names in the package's module.
        check: Arguments of `vaezoo check` that check it. `__NAME__` stands for its name.
        train: Arguments of `vaezoo train` that use it.
    """

    what: str
    entry_points: Mapping[str, str]
    check: str = "__NAME__"
    train: str = "__NAME__"

    @property
    def checked(self) -> str:
        """The arguments of `parametrize_with_checks`."""
        model, _, likelihood = self.check.partition(" --likelihood ")
        return f'["{model}"]' + (f', likelihood="{likelihood}"' if likelihood else "")

    def entry_point_tables(self) -> str:
        """Returns the tables of pyproject.toml that register the package's objects."""
        tables = (
            f'[project.entry-points."{group}"]\n__NAME__ = "__MODULE__:{name}"'
            for group, name in self.entry_points.items()
        )
        return "\n\n".join(tables)


MODEL = {"vaezoo.models": "SPEC"}


def part(what: str) -> PluginKind:
    """Returns the kind of a part of composed models, together with a model that has it."""
    return PluginKind(what, {f"vaezoo.{what}s": "Part", **MODEL}, train=f"conv-vae -o {what}=__NAME__")


KINDS: Mapping[str, PluginKind] = {
    "plain": PluginKind("model", MODEL),
    "conditional": PluginKind("model", MODEL),
    "posterior": part("posterior"),
    "prior": part("prior"),
    "objective": part("objective"),
    "likelihood": PluginKind(
        "likelihood",
        {"vaezoo.likelihoods": "make"},
        check="mlp-vae --likelihood __NAME__",
        train="mlp-vae --likelihood __NAME__",
    ),
    "hierarchy": PluginKind("model", MODEL),
    "codes": PluginKind("model", MODEL),
}


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind", "plugin_kind", type=click.Choice(tuple(KINDS)), default="plain", show_default=True, help="What it adds."
)
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Folder of the package.  [default: ./vaezoo-NAME]")
def new_plugin(name: str, plugin_kind: str, out: str | None) -> None:
    """Write the package of a new model, or of a part of models.

    It has a pyproject.toml, a module with small code that works, and a test that runs the conformance suite.

    \b
    kind         the package adds
    plain        a VAE with one hidden layer
    conditional  the same, with labels in encoder and decoder
    posterior    a family of q(z|x), planar flows, as a part of composed models
    prior        a family of p(z), a VampPrior, as a part
    objective    what training minimises, as a part
    likelihood   a family of p(x|z), Student's t, for --likelihood of every model
    hierarchy    a VAE with two levels of latents
    codes        a VQ-VAE
    """
    from vaezoo.core.atomic import atomic_dir

    if not NAME.fullmatch(name):
        raise VaezooError(f"'{name}' is not a valid model name", "use lower-case words joined by '-', such as my-vae")
    chosen = KINDS[plugin_kind]
    refuse_known(name, chosen)
    path = Path(out) if out else Path(f"vaezoo-{name}")
    if path.exists():
        raise StorageError(f"{path} already exists", "give another --out")
    values = {  # in this order: what comes first may hold the names behind it
        "ENTRY_POINTS": chosen.entry_point_tables(),
        "CHECKED": chosen.checked,
        "CHECK": chosen.check,
        "TRAIN": chosen.train,
        "WHAT": chosen.what,
        "NAME": name,
        "MODULE": f"vaezoo_{name.replace('-', '_')}",
    }
    template = files("vaezoo_cli") / "template"
    with atomic_dir(path) as work:
        write_template(template / "package", work, values)
        module = (template / "kinds" / f"{plugin_kind}.py.txt").read_text("utf-8")
        (work / f"{values['MODULE']}.py").write_text(fill(module, values), "utf-8")
    click.echo(f"written  {path}/")
    commands = f"vaezoo check {chosen.check}\n         vaezoo train {chosen.train}"
    click.echo(f"next     pip install -e {path}\n         {fill(commands, values)}")


def refuse_known(name: str, kind: PluginKind) -> None:
    """Raises VaezooError if a model, part or likelihood that the package would register has that name already."""
    from vaezoo.core.entry_points import Plugin, find_plugins
    from vaezoo.likelihoods.make import likelihood_names

    for group in kind.entry_points:
        known = {plugin.name for plugin in find_plugins(group, Plugin)[0]}
        if group == "vaezoo.likelihoods":
            known |= {*likelihood_names()}
        if name in known:
            what = group.rpartition(".")[2].removesuffix("s")
            raise VaezooError(f"a {what} named '{name}' already exists", "choose another name")


def write_template(source: Traversable, target: Path, values: dict[str, str]) -> None:
    """Copies a folder, and fills the placeholders in file names and texts."""
    for entry in source.iterdir():
        path = target / fill(entry.name.removesuffix(".txt"), values)
        if entry.is_dir():
            path.mkdir()
            write_template(entry, path, values)
        else:
            path.write_text(fill(entry.read_text("utf-8"), values), "utf-8")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replaces each placeholder `__NAME__` by its value."""
    for name, value in values.items():
        text = text.replace(f"__{name}__", value)
    return text

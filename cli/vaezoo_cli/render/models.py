"""The output of `vaezoo list` and `vaezoo show`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from vaezoo.core.entry_points import PACKAGE
from vaezoo.core.option_values import show_value
from vaezoo.core.options import Option
from vaezoo_cli.render.console import OUT, table

WIDE = 150  # columns that a table with all texts needs
PART_COLUMNS = ("model", "posterior", "prior", "objective")


class ModelRow(TypedDict):
    """One row of the list of models."""

    name: str
    distribution: str
    version: str
    posterior: str
    prior: str
    objective: str
    summary: str
    reference: str


class InputRow(TypedDict):
    """An input and the number of parameters of each module. `parameters` is None for an input that is not supported."""

    input: str
    shape: list[int]
    parameters: dict[str, int] | None


def render_models(models: Iterable[ModelRow]) -> None:
    """Prints the list of models. Where there is little room, the summaries have lines of their own."""
    models = list(models)
    if OUT.width < WIDE:
        render_narrow(models)
        return
    rows = table(*PART_COLUMNS, "summary", "reference", "package")
    for row in models:
        package = f"{row['distribution']} {row['version']}"
        texts = (row["posterior"], row["prior"], row["objective"], row["summary"], row["reference"], package)
        rows.add_row(f"[cyan]{row['name']}[/]", *map(escape, texts))
    OUT.print(rows)


def render_narrow(models: Sequence[ModelRow]) -> None:
    """Prints a line of parts and the summary below it for each model, with the package if it is not vaezoo."""
    cells = [PART_COLUMNS, *((row["name"], row["posterior"], row["prior"], row["objective"]) for row in models)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[cell.ljust(width + 2) for cell, width in zip(line, widths, strict=True)] for line in cells]
    OUT.print(Text("".join(padded[0]).rstrip(), "bold"), soft_wrap=True)
    for (name, *parts), row in zip(padded[1:], models, strict=True):
        OUT.print(Text.assemble((name, "cyan"), "".join(parts).rstrip()), soft_wrap=True)
        package = "" if row["distribution"] == PACKAGE else f" ({row['distribution']} {row['version']})"
        OUT.print(Padding(Text(row["summary"] + package), (0, 0, 0, 2)))


def render_parts(parts: Mapping[str, Iterable[str]]) -> None:
    """Prints the choices for each part of a composed model."""
    rows = table("part", "choices")
    for option, choices in parts.items():
        rows.add_row(f"[cyan]{option}[/]", escape(", ".join(choices)))
    OUT.print()
    OUT.print(rows)


def render_datasets(datasets: Mapping[str, str]) -> None:
    """Prints the list of data sets."""
    rows = table("data", "summary")
    for name, summary in datasets.items():
        rows.add_row(f"[cyan]{name}[/]", escape(summary))
    rows.add_row("PATH", "an image folder, or arrays in a .npz or .npy file")
    OUT.print()
    OUT.print(rows)


def render_model(model: ModelRow, options: Iterable[Option], inputs: Iterable[InputRow]) -> None:
    """Prints a model's options, and its parameters for several inputs."""
    OUT.print(f"[bold cyan]{model['name']}[/]  {model['distribution']} {model['version']}")
    OUT.print(escape(f"{model['summary']}\n{model['reference']}\n"))
    rows = table("option", "default", "value", "description")
    for option in options:
        rows.add_row(option.name, show_value(option.default) or "empty", option.type, escape(option.help))
    OUT.print(rows)
    rows = table("input", "parameters")
    unsupported = []
    for row in inputs:
        if row["parameters"] is None:
            unsupported.append(row["input"])
        else:
            rows.add_row(row["input"], show_parameters(row["parameters"]))
    OUT.print()
    OUT.print(rows)
    if unsupported:
        OUT.print(f"not supported: {', '.join(unsupported)}")


def show_parameters(counts: Mapping[str, int]) -> str:
    """Formats parameter counts as "1,000 = encoder 600 + decoder 400"."""
    return f"{sum(counts.values()):,} = " + " + ".join(f"{name} {count:,}" for name, count in counts.items())

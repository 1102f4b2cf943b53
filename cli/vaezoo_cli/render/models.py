"""The output of `vaezoo list` and `vaezoo show`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from rich.markup import escape

from vaezoo.core.options import Option, show_value
from vaezoo_cli.render.console import OUT, table


class ModelRow(TypedDict):
    """One row of the list of models."""

    name: str
    distribution: str
    version: str
    summary: str
    reference: str


class InputRow(TypedDict):
    """An input and the number of parameters of each module. `parameters` is None for an input that is not supported."""

    input: str
    shape: list[int]
    parameters: dict[str, int] | None


def render_models(models: Iterable[ModelRow]) -> None:
    """Prints the list of models."""
    rows = table("model", "package", "summary", "reference")
    for row in models:
        package = f"{row['distribution']} {row['version']}"
        rows.add_row(f"[cyan]{row['name']}[/]", escape(package), escape(row["summary"]), escape(row["reference"]))
    OUT.print(rows)


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

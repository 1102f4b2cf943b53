"""Trains recipes, evaluates them as they say, and writes the figures into the recipes and into README.md.

    python benchmarks/recipes.py NAME ... --data-dir FOLDER    FOLDER holds torchvision's MNIST; no NAME means all
    python benchmarks/recipes.py --tables                      only the table, from the results at hand

Runs stay in --runs; one that is there is gone on with, or evaluated if it is finished. Minutes are from the start of a
run to its end, pauses and all.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import vaezoo
from tables import HERE, hardware, put_tables, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes
from vaezoo.recipes import FOLDER, Recipe
from vaezoo.training.run import RESULT

FILE = HERE / "results" / "recipes-cpu.json"
PACKAGES = ("vaezoo", "torch")


def train(recipe: Recipe, data: vaezoo.Dataset, path: Path) -> vaezoo.Run:
    """Trains, or goes on with what is there."""
    if (path / "run.json").exists():
        return vaezoo.resume(path, data)
    return vaezoo.train(recipe.model, data, options=recipe.options, config=recipe.training, out=path)


def evaluate(recipe: Recipe, run: vaezoo.Run, data: vaezoo.Dataset) -> vaezoo.Evaluation:
    """Finds the figure as the recipe says."""
    how = recipe.evaluation
    bound = how.metric == "elbo"
    return vaezoo.evaluate(
        run,
        data,
        metrics=["elbo"] if bound else ["nll", "elbo"],
        **{"elbo_samples" if bound else "nll_samples": how.samples},  # type: ignore[arg-type]
        binarize=how.binarize,
        limit=how.limit,
        on_progress=lambda done, total: print(f"\r{recipe.name}: {done:,} of {total:,}", end="", file=sys.stderr),
    )


def measure(recipe: Recipe, data: vaezoo.Dataset, runs: Path) -> dict[str, Any]:
    """Returns a row: the figures and what they are of."""
    path = runs / recipe.name
    run = train(recipe, data, path)
    found = evaluate(recipe, run, data)
    seconds = (path / RESULT).stat().st_mtime - (path / "run.json").stat().st_mtime
    return {
        "recipe": recipe.name,
        "minutes": float(f"{seconds / 60:.3g}"),
        "environment": environment(PACKAGES),
        "threads": torch.get_num_threads(),
        "evaluation": found.as_dict(),
    }


def protocol(row: dict[str, Any]) -> str:
    """Returns how the figure of a row was found."""
    told = row["evaluation"]
    of = f"{told['examples']:,} of {told['total']:,}" if told["examples"] < told["total"] else f"{told['total']:,}"
    first = told["metrics"][0]
    return f"{first['name']}, {told['split']} part, {of} examples; {first['protocol']}; standard error {first['error']:.2f}"


def write_measured(row: dict[str, Any]) -> None:
    """Puts a figure into the recipe's file, in the place of an older one."""
    file = FOLDER / f"{row['recipe']}.toml"
    text = re.sub(r"\n\[measured\]\n.*", "", file.read_text(), flags=re.DOTALL).rstrip("\n")
    lines = [
        f"value = {row['evaluation']['figures'][0]['value']:.2f}",
        f"protocol = {json.dumps(protocol(row))}",
        f"minutes = {row['minutes']}",
        f"machine = {json.dumps(machine(row))}",
    ]
    write_file(file, "\n".join([text, "", "[measured]", *lines, ""]).encode())


def machine(row: dict[str, Any]) -> str:
    """Says what trained and evaluated."""
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{hardware(row['environment'])}, {threads}"


def tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines of README.md."""
    cells = []
    for row in sorted(rows, key=lambda r: r["recipe"]):
        recipe, figures = vaezoo.find_recipe(row["recipe"]), row["evaluation"]["metrics"]
        found = {figure["name"]: figure for figure in figures}
        elbo, first = found["-ELBO"], figures[0]
        reported = "-" if recipe.reference.value is None else f"{recipe.reference.value:g}"
        nll = f"{first['value']:.2f} ± {first['error']:.2f}" if first is not elbo else "-"
        pixels = {"none": "grey", "fixed": "bits"}[row["evaluation"]["config"]["binarize"]]
        active = found["active units"]
        units = f"{active['value']} {active['protocol'].partition(':')[0]}"
        bound = f"{elbo['value']:.2f}"
        parts = [f"{found[name]['value']:.2f}" for name in ("reconstruction", "KL")]
        cells.append([f"`{recipe.name}`", pixels, reported, nll, bound, *parts, units, f"{row['minutes']:g}"])
    head = ["recipe", "pixels", "reported", "NLL", "-ELBO", "reconstruction", "KL", "active units", "minutes"]
    told = sorted({f"{machine(row)}; {versions(row['environment'])}." for row in rows})
    return [" ".join(told), "", *table(head, cells)]


def main() -> None:
    """Reads the arguments, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--tables", action="store_true")
    chosen = parser.parse_args()
    recipes = [] if chosen.tables else [*map(vaezoo.find_recipe, chosen.names)] or vaezoo.list_recipes()
    rows = {row["recipe"]: row for row in json.loads(FILE.read_text())["rows"]} if FILE.exists() else {}
    for recipe in recipes:
        data = vaezoo.load_data(recipe.data, data_dir=chosen.data_dir, likelihood=recipe.likelihood)
        rows[recipe.name] = measure(recipe, data, chosen.runs)
        write_measured(rows[recipe.name])
        write_file(FILE, json_bytes({"schema": 1, "rows": [*rows.values()]}))
    put_tables("recipes", "recipes.py", tables([*rows.values()]))


if __name__ == "__main__":
    main()

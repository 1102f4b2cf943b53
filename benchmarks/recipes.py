"""Train recipes, evaluate them, and write the results into the recipe files and README.md.

    python benchmarks/recipes.py NAME ... --data-dir FOLDER    FOLDER contains torchvision's MNIST; no NAME means all
    python benchmarks/recipes.py --tables                      only the table, from existing results

Runs are kept in --runs. An unfinished run is resumed, and a finished one is only evaluated. Minutes are from the start
of a run to its end, including pauses.
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
from vaezoo.training.run_files import RESULT

FILE = HERE / "results" / "recipes-cpu.json"
CUDA_FILE = HERE / "results" / "recipes-cuda.json"  # of gpu.py, with the schedules of the papers
PACKAGES = ("vaezoo", "torch")


def train(recipe: Recipe, data: vaezoo.Dataset, path: Path) -> vaezoo.Run:
    """Trains a recipe, or resumes the run in `path`."""
    if (path / "run.json").exists():
        return vaezoo.resume(path, data)
    return vaezoo.train(recipe.model, data, options=recipe.options, config=recipe.training, out=path)


def evaluate(recipe: Recipe, run: vaezoo.Run, data: vaezoo.Dataset) -> vaezoo.Evaluation:
    """Evaluates a run as its recipe says. The recipe's metric is the first result."""
    config = recipe.evaluation
    samples = {"elbo_samples" if config.metric == "elbo" else "nll_samples": config.samples}
    return vaezoo.evaluate(
        run,
        data,
        metrics=["elbo"] if config.metric == "elbo" else ["nll", "elbo"],
        **samples,  # type: ignore[arg-type]
        binarize=config.binarize,
        limit=config.limit,
        on_progress=lambda done, total: print(f"\r{recipe.name}: {done:,} of {total:,}", end="", file=sys.stderr),
    )


def measure(recipe: Recipe, data: vaezoo.Dataset, runs: Path) -> dict[str, Any]:
    """Trains and evaluates a recipe and returns a row of results."""
    path = runs / recipe.name
    run = train(recipe, data, path)
    evaluation = evaluate(recipe, run, data)
    seconds = (path / RESULT).stat().st_mtime - (path / "run.json").stat().st_mtime
    return {
        "recipe": recipe.name,
        "minutes": float(f"{seconds / 60:.3g}"),
        "environment": environment(PACKAGES),
        "threads": torch.get_num_threads(),
        "evaluation": evaluation.as_dict(),
    }


def protocol(row: dict[str, Any]) -> str:
    """Returns the protocol of a row's first metric."""
    evaluation = row["evaluation"]
    examples, total, metric = evaluation["examples"], evaluation["total"], evaluation["metrics"][0]
    count = f"{examples:,} of {total:,}" if examples < total else f"{total:,}"
    return (
        f"{metric['name']}, {evaluation['split']} split, {count} examples; {metric['protocol']}; "
        f"standard error {metric['error']:.2f}"
    )


def write_measured(row: dict[str, Any]) -> None:
    """Writes the table [measured] of a recipe file. It replaces an older one."""
    file = FOLDER / f"{row['recipe']}.toml"
    text = re.sub(r"\n\[measured\]\n.*", "", file.read_text(), flags=re.DOTALL).rstrip("\n")
    lines = [
        f"value = {row['evaluation']['metrics'][0]['value']:.2f}",
        f"protocol = {json.dumps(protocol(row))}",
        f"minutes = {row['minutes']}",
        f"machine = {json.dumps(machine(row))}",
    ]
    write_file(file, "\n".join([text, "", "[measured]", *lines, ""]).encode())


def machine(row: dict[str, Any]) -> str:
    """Returns the machine of a row: its GPU, or its processor and number of threads."""
    if "gpu" in row["environment"]:
        return str(row["environment"]["gpu"]["name"])
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{hardware(row['environment'])}, {threads}"


def tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines for README.md, with a second table for a GPU if there are such results."""
    papers = ["", "With the schedules of the papers, from `gpu.py`:", ""]
    return [*row_tables(rows), *([*papers, *file_tables(CUDA_FILE)] if CUDA_FILE.exists() else [])]


def file_tables(file: Path) -> list[str]:
    """Returns the table of a result file."""
    return row_tables(json.loads(file.read_text("utf-8"))["rows"])


def row_tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the table of some rows, with their machines."""
    cells = []
    for row in sorted(rows, key=lambda r: r["recipe"]):
        recipe, evaluation = vaezoo.find_recipe(row["recipe"]), row["evaluation"]
        metrics = {metric["name"]: metric for metric in evaluation["metrics"]}
        first, active = evaluation["metrics"][0], metrics["active units"]
        cells.append(
            [
                f"`{recipe.name}`",
                {"none": "grey", "fixed": "bits"}[evaluation["config"]["binarize"]],
                "-" if recipe.reference.value is None else f"{recipe.reference.value:g}",
                f"{first['value']:.2f} ± {first['error']:.2f}" if first["name"].startswith("NLL") else "-",
                *(f"{metrics[name]['value']:.2f}" for name in ("-ELBO", "reconstruction", "KL")),
                f"{active['value']} {active['protocol'].partition(':')[0]}",
                f"{row['minutes']:g}",
            ]
        )
    head = ["recipe", "pixels", "reported", "NLL", "-ELBO", "reconstruction", "KL", "active units", "minutes"]
    machines = sorted({f"{machine(row)}; {versions(row['environment'])}." for row in rows})
    return [" ".join(machines), "", *table(head, cells)]


def main() -> None:
    """Parses the arguments, measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes to train; default: all")
    parser.add_argument("--data-dir", type=Path, help="folder of torchvision's data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    args = parser.parse_args()
    recipes = [] if args.tables else [*map(vaezoo.find_recipe, args.names)] or vaezoo.list_recipes()
    rows = {row["recipe"]: row for row in json.loads(FILE.read_text())["rows"]} if FILE.exists() else {}
    for recipe in recipes:
        data = vaezoo.load_data(recipe.data, data_dir=args.data_dir, likelihood=recipe.likelihood)
        rows[recipe.name] = measure(recipe, data, args.runs)
        write_measured(rows[recipe.name])
        write_file(FILE, json_bytes({"schema": 1, "rows": [*rows.values()]}))
    put_tables("recipes", "recipes.py", tables([*rows.values()]))


if __name__ == "__main__":
    main()

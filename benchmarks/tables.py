"""Helpers of the benchmark scripts: names of machines, statistics, and the tables in README.md."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaezoo.core.atomic import write_file
from vaezoo.core.json_io import json_bytes

HERE = Path(__file__).parent


def machine(result: Mapping[str, Any]) -> str:
    """Returns the name of a result's machine: its GPU, or its processor and number of threads."""
    environment, setting = result["environment"], result["setting"]
    gpu = environment.get("gpu", {}).get("name")
    name = gpu or f"{environment['cpu']} {setting['threads']} threads"
    return f"{name} tf32" if setting.get("tf32") else str(name)


def slug(text: str) -> str:
    """Returns a text in the form of a file name: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def versions(environment: Mapping[str, Any]) -> str:
    """Returns the versions of Python and of the packages as text."""
    packages = environment["versions"]
    return f"Python {environment['python']}, {', '.join(f'{name} {packages[name]}' for name in sorted(packages))}"


def hardware(environment: Mapping[str, Any]) -> str:
    """Returns the hardware of a measurement as text: processor, cores and system."""
    cores = f"{environment['cores']} cores"
    return ", ".join([environment["cpu"], cores, *([environment["system"]] if "system" in environment else [])])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(cells)} |" for cells in rows)]


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Returns the quartiles and the number of values. Without values, the result is only `n = 0`."""
    if not len(values):
        return {"n": 0}
    p25, p50, p75 = (float(f"{q:.6g}") for q in np.percentile(np.asarray(values), (25, 50, 75)))
    return {"p25": p25, "p50": p50, "p75": p75, "n": len(values)}


def format_quartiles(values: Mapping[str, float], spec: str) -> str:
    """Returns a median with its quartiles in brackets, each formatted by `spec`. Without values, returns ""."""
    if not values["n"]:
        return ""
    return f"{values['p50']:{spec}} ({values['p25']:{spec}} to {values['p75']:{spec}})"


def ratios(numerators: Mapping[int, float], denominators: Mapping[int, float]) -> list[float]:
    """Returns the ratio of two backends' values for each round in which both ran."""
    return [numerators[number] / denominators[number] for number in sorted(numerators.keys() & denominators.keys())]


def measure_rows(
    file: Path, order: Iterable[str], names: Iterable[str], measure: Callable[[str], dict[str, Any]]
) -> None:
    """Measures rows of a result, and writes the file after each of them. The other rows of the file stay.

    Args:
        file: The result, which may not exist yet.
        order: The names of all rows, in the order in which they are written.
        names: Those to measure.
        measure: Returns a row by its name.
    """
    rows = {row["name"]: row for row in json.loads(file.read_text("utf-8"))["rows"]} if file.exists() else {}
    order = [*order]
    for name in names:
        rows[name] = measure(name)
        print(json.dumps(rows[name]), file=sys.stderr)
        write_file(file, json_bytes({"schema": 1, "rows": [rows[each] for each in order if each in rows]}))


def put_tables(name: str, script: str, lines: Sequence[str], readme: Path = HERE / "README.md") -> None:
    """Writes tables between the markers `<!-- name: written by script -->` and `<!-- /name -->` of README.md."""
    begin, end = f"<!-- {name}: written by {script} -->", f"<!-- /{name} -->"
    before, has_begin, rest = readme.read_text("utf-8").partition(begin)
    _, has_end, after = rest.partition(end)
    assert has_begin and has_end, f"{readme} has no markers of {name}"
    text = "\n".join(lines).strip("\n")
    body = f"{text}\n\n" if text else ""
    write_file(readme, f"{before}{begin}\n\n{body}{end}{after}".encode())

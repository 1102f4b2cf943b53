"""What the scripts here share: a machine's name, statistics, and tables between their marks in README.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaezoo.core.atomic import write_file

HERE = Path(__file__).parent


def machine(result: Mapping[str, Any]) -> str:
    """Names the machine of a result: its GPU, or its processor and cores."""
    environment, setting = result["environment"], result["setting"]
    gpu = environment.get("gpu", {}).get("name")
    name = gpu or f"{environment['cpu']} {setting['threads']} threads"
    return f"{name} tf32" if setting.get("tf32") else str(name)


def slug(text: str) -> str:
    """Returns a text as a part of a path."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def versions(environment: Mapping[str, Any]) -> str:
    """Writes the versions of Python and of the packages."""
    packages = environment["versions"]
    return f"Python {environment['python']}, {', '.join(f'{name} {packages[name]}' for name in sorted(packages))}"


def hardware(environment: Mapping[str, Any]) -> str:
    """Writes what a measurement ran on: processor, cores, system."""
    cores = f"{environment['cores']} cores"
    return ", ".join([environment["cpu"], cores, *([environment["system"]] if "system" in environment else [])])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(cells)} |" for cells in rows)]


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Returns the quartiles and the number of some values; of none, only n = 0."""
    if not len(values):
        return {"n": 0}
    p25, p50, p75 = (float(f"{q:.6g}") for q in np.percentile(np.asarray(values), (25, 50, 75)))
    return {"p25": p25, "p50": p50, "p75": p75, "n": len(values)}


def ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Returns one contestant's figure over another's for each round in which both ran."""
    return [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())]


def put_tables(name: str, script: str, lines: Sequence[str], readme: Path = HERE / "README.md") -> None:
    """Puts tables between the marks `<!-- name: written by script -->` and `<!-- /name -->` of README.md."""
    begin, end = f"<!-- {name}: written by {script} -->", f"<!-- /{name} -->"
    before, begun, rest = readme.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    assert begun and ended, f"{readme} has no marks of {name}"
    text = "\n".join(lines).strip("\n")
    body = f"{text}\n\n" if text else ""
    write_file(readme, f"{before}{begin}\n\n{body}{end}{after}".encode())

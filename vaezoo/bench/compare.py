"""Compare two benchmark results: which rows changed by more than their spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from vaezoo.bench.result import BenchResult
from vaezoo.core.json_io import read_json
from vaezoo.errors import InputError

SCHEMA = 2
KEYS: tuple[Literal["task", "batch", "io_mode", "backend"], ...] = ("task", "batch", "io_mode", "backend")
SECTIONS: tuple[Literal["environment", "setting", "model"], ...] = ("environment", "setting", "model")


@dataclass(frozen=True, slots=True)
class Change:
    """One row of two results.

    Attributes:
        where: Task, batch size, IO mode and backend.
        before: Median of the first result in milliseconds, or None without such a row.
        after: Median of the second result, likewise.
        verdict: "faster", "slower", "same" if the quartiles overlap, or "missing" if one result has no such row.
    """

    where: tuple[str, ...]
    before: float | None
    after: float | None
    verdict: str


def read_result(path: Path) -> BenchResult:
    """Reads a result that `vaezoo bench --json` wrote.

    Raises:
        InputError: If the file cannot be read, is not such a result, or has another schema.
    """
    hint = "give a file that 'vaezoo bench --json' wrote"
    if not path.is_file():
        raise InputError(f"cannot read {path}: no such file", hint)
    invalid = InputError(f"{path} is not a benchmark result of schema {SCHEMA}", hint)
    try:
        result: dict[str, Any] = read_json(path)
    except InputError as e:
        raise invalid from e
    if result.get("schema") != SCHEMA or not isinstance(result.get("rows"), list):
        raise invalid
    try:
        for row in result["rows"]:
            [row[key] for key in KEYS]
            if not 0 < row["p25"] <= row["p50"] <= row["p75"]:
                raise ValueError(f"quartiles of {row['backend']}")
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{path} is damaged: {e!r}", "measure again") from e
    return cast("BenchResult", result)


def compare_results(before: BenchResult, after: BenchResult) -> list[Change]:
    """Compares two results row by row, in the order of the first."""
    old, new = ({tuple(str(row[key]) for key in KEYS): row for row in result["rows"]} for result in (before, after))
    changes = []
    for where in {**old, **new}:
        a, b = old.get(where), new.get(where)
        if a is None or b is None:
            verdict = "missing"
        elif a["p25"] > b["p75"]:
            verdict = "faster"
        else:
            verdict = "slower" if b["p25"] > a["p75"] else "same"
        changes.append(Change(where, a and a["p50"], b and b["p50"], verdict))
    return changes


def differences(before: BenchResult, after: BenchResult) -> list[str]:
    """Returns the other differences of two results: machine, versions, settings and model."""
    lines = []
    for section in SECTIONS:
        a: Mapping[str, object] = before.get(section) or {}
        b: Mapping[str, object] = after.get(section) or {}
        lines += [
            f"{section} {key}: {a.get(key, 'not stated')} -> {b.get(key, 'not stated')}"
            for key in {**a, **b}
            if a.get(key) != b.get(key)
        ]
    return lines

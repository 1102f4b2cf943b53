"""Two results beside each other: which rows changed by more than their spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaezoo.core.json_io import read_json
from vaezoo.errors import InputError

SCHEMA = 1
KEYS = ("task", "batch", "regime", "contestant")


@dataclass(frozen=True, slots=True)
class Change:
    """One row of two results.

    Attributes:
        where: Task, batch size, regime and contestant.
        before: Median in the first, in milliseconds; None if it has no such row.
        after: Median in the second, likewise.
        verdict: "faster", "slower" or "same", where the quartiles of the two overlap; "missing" if one has no such row.
    """

    where: tuple[str, ...]
    before: float | None
    after: float | None
    verdict: str


def read_result(path: Path) -> Mapping[str, Any]:
    """Reads what `bench` returned and somebody wrote to a file.

    Raises:
        InputError: If it cannot be read, is no such result or has another schema.
    """
    wrong = InputError(f"{path} is no result of schema {SCHEMA}", "give a file that 'vaezoo bench --json' wrote")
    if not path.is_file():
        raise InputError(f"cannot read {path}: no such file", wrong.hint)
    try:
        result: dict[str, Any] = read_json(path)
    except InputError as e:
        raise wrong from e
    if result.get("schema") != SCHEMA or not isinstance(result.get("rows"), list):
        raise wrong
    try:
        for row in result["rows"]:
            [row[key] for key in KEYS]
            if not 0 < row["p25"] <= row["p50"] <= row["p75"]:
                raise ValueError(f"quartiles of {row['contestant']}")
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{path} is damaged: {e!r}", "measure again") from e
    return result


def compare_results(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Compares two results row by row, in the order of the first."""
    old, new = ({tuple(str(r[k]) for k in KEYS): r for r in result["rows"]} for result in (before, after))
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


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Returns what else differs between two results: machine, versions, setting, model."""
    found = []
    for part in ("environment", "setting", "model"):
        a, b = before.get(part) or {}, after.get(part) or {}
        found += [
            f"{part} {key}: {a.get(key, 'not stated')} -> {b.get(key, 'not stated')}"
            for key in {**a, **b}
            if a.get(key) != b.get(key)
        ]
    return found

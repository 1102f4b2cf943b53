"""Trials of `export`: the real code but for the graphs and the gate, which are slow and write nothing."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from unittest import mock

import factories
import injector
import toy_run
from forked import Answer, forked
from kills import may_succeed, no_leftovers

import vaezoo
from vaezoo.errors import StorageError
from vaezoo.export import export as exporting
from vaezoo.export.graphs import Graph
from vaezoo.export.tolerance import Parity
from vaezoo.runtime.manifest import read_manifest

Contents = dict[str, str]  # name -> SHA-256; empty where there is no export


@cache
def _run() -> vaezoo.Run:
    return vaezoo.load(factories.write_run(Path(os.environ["FAULTS_FOLDER"]) / "run"))


@cache
def _cases() -> dict[str, list[object]]:
    return factories.cases()  # type: ignore[return-value]


def export(path: Path, version: str) -> None:
    """Exports; versions differ in the bytes of their graphs."""
    models, signatures = factories.graphs(), factories.description()["graphs"]
    for model in models.values():
        model.doc_string = version
    graphs = {part: Graph(part, model.SerializeToString(), signatures[part]) for part, model in models.items()}  # type: ignore[index, arg-type]
    gate = [Parity("encoder", "real", "mu", 0.0, 0.0, 1)], _cases()
    with (
        mock.patch.object(exporting, "export_graphs", lambda vae, form: graphs),
        mock.patch.object(exporting, "check_parity", lambda *args: gate),
    ):
        exporting.export_onnx(_run(), path)


@cache
def version(name: str) -> Contents:
    """Returns what an export of a version is."""
    path = Path(os.environ["FAULTS_FOLDER"]) / "versions" / name
    export(path, name)
    return toy_run.contents(path)


def whole(path: Path) -> Contents:
    """Returns what an export is, after looking that its manifest is sound and names what is there."""
    if not path.exists():
        return {}
    for name, listed in read_manifest(path)["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == listed["sha256"], name
    return toy_run.contents(path)


def prepared(folder: Path, replace: bool) -> Path:
    """Returns the path to export to, where an older export lies if one is to be replaced."""
    for name in ("older", "newer"):
        version(name)
    if replace:
        export(folder / "export", "older")
    return folder / "export"


def export_operations(folder: Path, replace: bool) -> Answer:
    """Counts the operations of an export."""
    path = prepared(folder, replace)
    seen: list[str] = []

    def work() -> int:
        with injector.watched(folder, lambda op: seen.append(op.kind)):
            export(path, "newer")
        return len(seen)

    return {"bad": None, "count": forked(work)}


def kill_export(folder: Path, at: int, replace: bool) -> Answer:
    """Kills an export at an operation, and exports again."""
    path = prepared(folder, replace)

    def work() -> bool:
        with injector.watched(folder, injector.Fault(at, "kill")):
            export(path, "newer")
        return True

    finished = forked(work)
    old_or_new(path, replace)
    goes_on(path)
    return {"bad": None, "finished": finished}


def old_or_new(path: Path, replace: bool) -> None:
    """Looks that what an export was to replace is there, or what it made."""
    assert whole(path) in (version("older") if replace else {}, version("newer")), "neither old nor new"


def goes_on(path: Path) -> None:
    """Exports again."""
    forked(lambda: export(path, "newer"))
    assert whole(path) == version("newer")


def fail_export(folder: Path, at: int, how: str, sticky: bool, replace: bool) -> Answer:
    """Fails an operation of an export, and exports again."""
    path = prepared(folder, replace)

    def work() -> bool:
        fault = injector.Fault(at, how, sticky)
        try:
            with injector.watched(folder, fault):
                export(path, "newer")
        except StorageError:
            no_leftovers(folder, fault)
            old_or_new(path, replace)
            return False
        no_leftovers(folder, fault)
        may_succeed(fault)
        assert whole(path) == version("newer"), "success without the new export"
        return True

    finished = forked(work)
    goes_on(path)
    return {"bad": None, "finished": finished}

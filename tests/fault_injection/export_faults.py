"""Faults during an export. Only the graphs and the parity gate are replaced, which are slow and write nothing."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from unittest import mock

import factories
import injector
import toy_run
from forked import Response, run_forked
from kills import check_ignorable, check_no_leftovers

import vaezoo
from vaezoo.errors import StorageError
from vaezoo.export import export as exporting
from vaezoo.export.cases import Case
from vaezoo.export.graphs import Graph
from vaezoo.export.tolerance import Parity
from vaezoo.runtime.export_files import read_manifest
from vaezoo.runtime.manifest import GraphName

FileHashes = dict[str, str]  # path -> SHA-256; empty without an export


@cache
def _run() -> vaezoo.Run:
    return vaezoo.load(factories.write_run(Path(os.environ["FAULTS_FOLDER"]) / "run"))


@cache
def _cases() -> dict[GraphName, list[Case]]:
    return factories.cases()


def export(path: Path, version: str) -> None:
    """Writes an export. Versions differ in the bytes of their graphs."""
    models, signatures = factories.graphs(), factories.description()["graphs"]
    for model in models.values():
        model.doc_string = version
    graphs = {name: Graph(name, model.SerializeToString(), signatures[name]) for name, model in models.items()}
    parity = [Parity("encoder", "real", "mu", 0.0, 0.0, 1)], _cases()
    with (
        mock.patch.object(exporting, "export_graphs", lambda *args: graphs),
        mock.patch.object(exporting, "check_parity", lambda *args: parity),
    ):
        exporting.export_onnx(_run(), path)


@cache
def version(name: str) -> FileHashes:
    """Returns the files of an undisturbed export of a version."""
    path = Path(os.environ["FAULTS_FOLDER"]) / "versions" / name
    export(path, name)
    return toy_run.file_hashes(path)


def whole(path: Path) -> FileHashes:
    """Returns the files of an export, after checking them against its manifest."""
    if not path.exists():
        return {}
    for name, entry in read_manifest(path)["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == entry["sha256"], name
    return toy_run.file_hashes(path)


def prepare(folder: Path, replace: bool) -> Path:
    """Returns the path to export to. With `replace`, an older export is there."""
    for name in ("older", "newer"):
        version(name)
    if replace:
        export(folder / "export", "older")
    return folder / "export"


def export_operations(folder: Path, replace: bool) -> Response:
    """Counts the operations of an export."""
    path = prepare(folder, replace)
    operations: list[str] = []

    def work() -> int:
        with injector.intercept(folder, lambda op: operations.append(op.kind)):
            export(path, "newer")
        return len(operations)

    return {"error": None, "count": run_forked(work)}


def kill_export(folder: Path, at: int, replace: bool) -> Response:
    """Kills an export at an operation, then exports again."""
    path = prepare(folder, replace)

    def work() -> bool:
        with injector.intercept(folder, injector.Fault(at, "kill")):
            export(path, "newer")
        return True

    finished = run_forked(work)
    check_old_or_new(path, replace)
    check_export_again(path)
    return {"error": None, "finished": finished}


def check_old_or_new(path: Path, replace: bool) -> None:
    """Checks that either the replaced export is there or the new one."""
    assert whole(path) in (version("older") if replace else {}, version("newer")), "neither old nor new"


def check_export_again(path: Path) -> None:
    """Exports again and checks the result."""
    run_forked(lambda: export(path, "newer"))
    assert whole(path) == version("newer")


def fail_export(folder: Path, at: int, how: str, sticky: bool, replace: bool) -> Response:
    """Makes an operation of an export fail, then exports again."""
    path = prepare(folder, replace)

    def work() -> bool:
        fault = injector.Fault(at, how, sticky)
        try:
            with injector.intercept(folder, fault):
                export(path, "newer")
        except StorageError:
            check_no_leftovers(folder, fault)
            check_old_or_new(path, replace)
            return False
        check_no_leftovers(folder, fault)
        check_ignorable(fault)
        assert whole(path) == version("newer"), "success without the new export"
        return True

    finished = run_forked(work)
    check_export_again(path)
    return {"error": None, "finished": finished}

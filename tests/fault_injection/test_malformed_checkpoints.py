"""Malformed runs with matching hashes: each is refused with a VaezooError, and nothing else happens."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from forging import stopped_run
from harnesses import limit_memory
from malformed_runs import (
    COUNTERS,
    DEEP,
    EXAMPLES,
    FILES,
    MALFORMED,
    MANIFEST,
    NAMES,
    REPLACEMENTS,
    RESULTS,
    RUN,
    STATE,
    UNKNOWN_MODEL,
    WEIGHTS,
    Damage,
    checkpoints,
    endless,
    fifo,
    folder,
    link_to_itself,
    replaced,
    sparse_terabyte,
)
from processes import HANG_SECONDS
from selection import every_nth

import vaezoo
from vaezoo.errors import InputError, VaezooError
from vaezoo.training import run_files
from vaezoo.training.checkpoint import SCHEMA
from vaezoo_cli.main import main

CheckCases = Callable[[str, int, Sequence[object]], None]
MAX_GROWTH = 1 << 20  # KiB of memory that a case may take


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact run that was stopped."""
    return stopped_run(tmp_path_factory.mktemp("malformed"))


@pytest.fixture
def run(original: Path, inside: Path) -> Path:
    """A copy of the intact run in the current directory."""
    return shutil.copytree(original, inside / "run").relative_to(inside)


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """Limits the memory of a case, and ends it if it hangs."""

    def on_alarm(number: int, frame: object) -> None:
        pytest.fail("the case hangs")  # not an OSError, which the code under test might ignore

    rlimit, before = resource.getrlimit(resource.RLIMIT_AS), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit_memory()
    handler = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(HANG_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, rlimit)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH


def outcome(call: Callable[[], object]) -> object:
    """Returns the result of a call, or the exit code of a VaezooError. Other exceptions are raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaezoo.errors.VaezooWarning)  # "... is damaged; using step 2"
        try:
            return call()
        except VaezooError as e:
            assert e.message and e.hint and len(e.message) < 2_000
            return e.exit_code


def tree(path: Path) -> dict[str, object]:
    """Returns the mode and the content of each entry of a folder."""
    return {
        str(p.relative_to(path)): (p.lstat().st_mode, p.lstat().st_size < 1 << 22 and p.is_file() and p.read_bytes())
        for p in path.rglob("*")
    }


@pytest.mark.parametrize("name", every_nth(7, MALFORMED))
def test_malformed_run_is_refused(name: str, run: Path, check_cases: CheckCases) -> None:
    MALFORMED[name](run)
    before = tree(run)
    loaded = outcome(lambda: vaezoo.load(run))
    after = tree(run)
    resumed = outcome(lambda: vaezoo.resume(run))
    code = 2 if name in UNKNOWN_MODEL else 3
    bad = [f"{name}: {result}" for result in (loaded, resumed) if result != code]
    if name.startswith("files: training.safetensors"):  # only a resumed training reads it
        bad = bad[1:]
    if before != after or not {".lock"} >= tree(run).keys() - before.keys():
        bad.append(f"{name}: wrote {tree(run).keys() - before.keys()}")
    if os.listdir() != ["run"]:
        bad.append(f"{name}: wrote {os.listdir()}")
    check_cases("C3", 2, bad)


@pytest.mark.parametrize("name", every_nth(7, COUNTERS))
def test_malformed_counters_are_refused(name: str, run: Path, check_cases: CheckCases) -> None:
    COUNTERS[name](run)
    before = tree(run)
    resumed = outcome(lambda: vaezoo.resume(run))
    bad = [f"{name}: {resumed}"] if resumed != 3 else []
    if not {".lock", "metrics.jsonl"} >= tree(run).keys() - before.keys():
        bad.append(f"{name}: wrote {tree(run).keys() - before.keys()}")
    check_cases("C3", 1, bad)


@pytest.mark.parametrize("name", RESULTS)
def test_malformed_result_is_refused(name: str, run: Path, check_cases: CheckCases) -> None:
    (run / "result.json").write_text(DEEP if name == "deep" else json.dumps(RESULTS[name]))
    results = [outcome(lambda: vaezoo.load(run)), outcome(lambda: vaezoo.resume(run))]
    check_cases("C3", 2, [f"{name}: {result}" for result in results if result != 3])


@pytest.mark.parametrize("name", EXAMPLES)
def test_malformed_examples_are_refused(name: str, run: Path, check_cases: CheckCases) -> None:
    (run / "examples.safetensors").write_bytes(EXAMPLES[name])
    result = outcome(lambda: vaezoo.load(run))
    check_cases("C3", 1, [f"{name}: {result}"] if result != 3 else [])


@pytest.mark.parametrize("create", REPLACEMENTS)
@pytest.mark.parametrize("name", ["examples.safetensors", "result.json"])
def test_special_files_are_refused(
    name: str, create: Callable[[Path], None], run: Path, check_cases: CheckCases
) -> None:
    (run / name).unlink(missing_ok=True)
    create(run / name)
    result = outcome(lambda: vaezoo.load(run))
    # A link to itself counts as a missing file.
    fine = result == 3 or (create is link_to_itself and isinstance(result, vaezoo.Run))
    check_cases("C3", 1, [] if fine else [f"{name}: {result}"])


# Where a resumed training writes, something else may be already.
WRITTEN = ("metrics.jsonl", ".lock", "result.json", "examples.safetensors", "checkpoints/step-00000004")
PLANTED = {
    "link": lambda path, canary: path.symlink_to(canary),
    "link to nothing": lambda path, canary: path.symlink_to(canary.with_name("new")),
    "link to a folder": lambda path, canary: path.symlink_to(canary.parent),
    "hard link": lambda path, canary: path.hardlink_to(canary),
    "fifo": lambda path, canary: fifo(path),
    "folder": lambda path, canary: folder(path),
    "endless": lambda path, canary: endless(path),
    "sparse": lambda path, canary: sparse_terabyte(path),
}
PLACES = [f"{kind} as {name}" for name in (*WRITTEN, ".tmp-1-x", "checkpoints/.tmp-1-x") for kind in PLANTED]


@pytest.mark.parametrize("place", every_nth(7, PLACES))
def test_nothing_outside_is_written(place: str, run: Path, check_cases: CheckCases) -> None:
    kind, name = place.split(" as ")
    bad = []
    for number, content in enumerate((b"precious", b"")):
        copy = shutil.copytree(run, Path(f"run-{number}"))
        canary = Path(f"outside-{number}/canary")
        canary.parent.mkdir()
        canary.write_bytes(content)
        (copy / name).unlink(missing_ok=True)
        PLANTED[kind](copy / name, canary.absolute())
        result = outcome(lambda copy=copy: vaezoo.resume(copy))
        if not isinstance(result, vaezoo.Run) and result not in (3, 5):
            bad.append(f"{place}: {result}")
        if tree(canary.parent) != {"canary": (canary.lstat().st_mode, content)}:
            bad.append(f"{place}: changed a file outside")
        if set(os.listdir()) != {"run", "run-0", "outside-0", copy.name, canary.parent.name}:
            bad.append(f"{place}: wrote {os.listdir()}")
    check_cases("C3", 2, bad)


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/step-00000000", "checkpoints/step-00000003"])
def test_linked_folder_is_unchanged(name: str, run: Path, check_cases: CheckCases) -> None:
    (run / name).rename("elsewhere")
    (run / name).symlink_to(Path("elsewhere").absolute())
    before = tree(Path("elsewhere"))
    result = outcome(lambda: vaezoo.resume(run))
    bad = [] if isinstance(result, vaezoo.Run) or result == 3 else [f"{name}: {result}"]
    check_cases("C3", 1, bad + ([f"{name}: changed"] if tree(Path("elsewhere")) != before else []))


@pytest.mark.parametrize(
    ("damage", "schema"),
    [(MANIFEST["future schema"], SCHEMA), (STATE["future schema"], SCHEMA), (RUN["future schema"], run_files.SCHEMA)],
)
def test_future_schema_suggests_update(damage: Damage, schema: int, run: Path) -> None:
    damage(run)
    with pytest.raises(InputError, match=f"has schema {schema + 1}; this version reads {schema}") as e:
        vaezoo.load(run)
    assert e.value.hint == "update vaezoo"


def test_unreadable_file_is_refused(run: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read all files")
    for checkpoint in checkpoints(run):
        (checkpoint / "model.safetensors").chmod(0)
    assert outcome(lambda: vaezoo.load(run)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        WEIGHTS["header of 2^63 bytes"],
        WEIGHTS["NaN"],
        MANIFEST["parent folder"],
        MANIFEST["future schema"],
        STATE["deep"],
        NAMES["escape sequence"],
        RUN["latent_dim of a terabyte"],
        RUN["option is code"],
        RUN["model with a newline"],
        FILES["model.safetensors fifo"],
        FILES["run.json sparse_terabyte"],
        replaced("examples.safetensors", endless),
    ],
)
def test_commands_print_two_lines(damage: Damage, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage(run)
    for arguments in (["sample", "run"], ["train", "--resume", "run"], ["export", "run", "--onnx"]):
        if arguments[0] == "train" and damage is not RUN["option is code"]:
            continue
        with pytest.raises(SystemExit) as e:
            main(arguments)
        errors = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("vaezoo: warning")]
        assert e.value.code in (2, 3) and len(errors) == 2, errors
        assert errors[0].startswith("vaezoo: error: ") and errors[1].startswith("hint: ")
    assert os.listdir() == ["run"]

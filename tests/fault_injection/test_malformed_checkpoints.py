"""Runs that an enemy made, hashes and all: each is refused with our error or is what it was, nothing else happens."""

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
    KINDS,
    MANIFEST,
    NAMES,
    REFUSED,
    RESULTS,
    RUN,
    STATE,
    UNKNOWN,
    WEIGHTS,
    Damage,
    fifo,
    folder,
    itself,
    replaced,
    sparse,
    steps,
    zeros,
)

import vaezoo
from vaezoo.errors import InputError, VaezooError
from vaezoo_cli.main import main

Tell = Callable[[str, int, Sequence[object]], None]
SECONDS = 5  # after which a case counts as hanging
GROWTH = 1 << 20  # KiB of memory


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped."""
    return stopped_run(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def run(whole: Path, inside: Path) -> Path:
    """A copy of it, to damage, in the current directory."""
    return shutil.copytree(whole, inside / "run").relative_to(inside)


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    """A little memory and time, for the case alone."""

    def late(number: int, frame: object) -> None:
        pytest.fail("the case hangs")  # no OSError, which somebody might ignore

    rlimit, before = resource.getrlimit(resource.RLIMIT_AS), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit_memory()
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, rlimit)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


def outcome(call: Callable[[], object]) -> object:
    """Returns what a call gives, or the exit code of our error; any other exception comes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaezoo.errors.VaezooWarning)  # "... is damaged; taking step 2"
        try:
            return call()
        except VaezooError as e:
            assert e.message and e.hint and len(e.message) < 2_000
            return e.exit_code


def tree(path: Path) -> dict[str, object]:
    """What lies in a folder: names, kinds and contents."""
    return {
        str(p.relative_to(path)): (p.lstat().st_mode, p.lstat().st_size < 1 << 22 and p.is_file() and p.read_bytes())
        for p in path.rglob("*")
    }


@pytest.mark.parametrize(("name", "damage"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_an_enemy_made_is_refused(name: str, damage: Damage, run: Path, tell: Tell) -> None:
    damage(run)
    before = tree(run)
    loaded = outcome(lambda: vaezoo.load(run))
    after = tree(run)
    resumed = outcome(lambda: vaezoo.resume(run))
    code = 2 if name in UNKNOWN else 3
    bad = [f"{name}: {found}" for found in (loaded, resumed) if found != code]
    if name.startswith("files: training.safetensors"):  # which only a resumed training reads
        bad = bad[1:]
    if before != after or not {".lock"} >= tree(run).keys() - before.keys():
        bad.append(f"{name}: wrote {tree(run).keys() - before.keys()}")
    if os.listdir() != ["run"]:
        bad.append(f"{name}: wrote {os.listdir()}")
    tell("C3", 2, bad)


@pytest.mark.parametrize(("name", "damage"), COUNTERS.items(), ids=COUNTERS)
def test_counters_that_no_training_wrote_are_refused(name: str, damage: Damage, run: Path, tell: Tell) -> None:
    damage(run)
    before = tree(run)
    resumed = outcome(lambda: vaezoo.resume(run))
    bad = [f"{name}: {resumed}"] if resumed != 3 else []
    if not {".lock", "metrics.jsonl"} >= tree(run).keys() - before.keys():
        bad.append(f"{name}: wrote {tree(run).keys() - before.keys()}")
    tell("C3", 1, bad)


@pytest.mark.parametrize("name", RESULTS)
def test_results_that_no_training_wrote_are_refused(name: str, run: Path, tell: Tell) -> None:
    (run / "result.json").write_text(DEEP if name == "deep" else json.dumps(RESULTS[name]))
    found = [outcome(lambda: vaezoo.load(run)), outcome(lambda: vaezoo.resume(run))]
    tell("C3", 2, [f"{name}: {code}" for code in found if code != 3])


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_that_are_no_pixels_are_refused(name: str, run: Path, tell: Tell) -> None:
    (run / "examples.safetensors").write_bytes(EXAMPLES[name])
    found = outcome(lambda: vaezoo.load(run))
    tell("C3", 1, [f"{name}: {found}"] if found != 3 else [])


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["examples.safetensors", "result.json"])
def test_what_is_no_file_beside_the_model(name: str, make: Callable[[Path], None], run: Path, tell: Tell) -> None:
    (run / name).unlink(missing_ok=True)
    make(run / name)
    found = outcome(lambda: vaezoo.load(run))
    fine = {3} if make is not itself else {3, "a run"}  # a link to itself is as good as none
    tell("C3", 1, [f"{name}: {found}"] if ("a run" if isinstance(found, vaezoo.Run) else found) not in fine else [])


# Where a resumed training writes: what stands there already may be anything.
WRITTEN = ("metrics.jsonl", ".lock", "result.json", "examples.safetensors", "checkpoints/step-00000004")
PLANTED = {
    "link": lambda path, canary: path.symlink_to(canary),
    "link to nothing": lambda path, canary: path.symlink_to(canary.with_name("new")),
    "link to a folder": lambda path, canary: path.symlink_to(canary.parent),
    "second name": lambda path, canary: path.hardlink_to(canary),
    "fifo": lambda path, canary: fifo(path),
    "folder": lambda path, canary: folder(path),
    "zeros": lambda path, canary: zeros(path),
    "sparse": lambda path, canary: sparse(path),
}


@pytest.mark.parametrize("content", [b"precious", b""], ids=["full", "empty"])
@pytest.mark.parametrize("how", PLANTED)
@pytest.mark.parametrize("name", [*WRITTEN, ".tmp-1-x", "checkpoints/.tmp-1-x"])
def test_nothing_outside_the_run_is_written(name: str, how: str, content: bytes, run: Path, tell: Tell) -> None:
    canary = Path("outside/canary")
    canary.parent.mkdir()
    canary.write_bytes(content)
    (run / name).unlink(missing_ok=True)
    PLANTED[how](run / name, canary.absolute())
    found = outcome(lambda: vaezoo.resume(run))
    bad = [] if isinstance(found, vaezoo.Run) or found in (3, 5) else [f"{name}, {how}: {found}"]
    if tree(canary.parent) != {"canary": (canary.lstat().st_mode, content)} or sorted(os.listdir()) != [
        "outside",
        "run",
    ]:
        bad.append(f"{name}, {how}: outside")
    tell("C3", 1, bad)


@pytest.mark.parametrize("where", ["checkpoints", "checkpoints/step-00000000", "checkpoints/step-00000003"])
def test_a_linked_folder_is_left_alone(where: str, run: Path, tell: Tell) -> None:
    (run / where).rename("elsewhere")
    (run / where).symlink_to(Path("elsewhere").absolute())
    before = tree(Path("elsewhere"))
    found = outcome(lambda: vaezoo.resume(run))
    bad = [] if isinstance(found, vaezoo.Run) or found == 3 else [f"{where}: {found}"]
    tell("C3", 1, bad + ([f"{where}: outside"] if tree(Path("elsewhere")) != before else []))


@pytest.mark.parametrize("damage", [case["schema of the future"] for case in (MANIFEST, STATE, RUN)])
def test_a_schema_of_the_future_says_which_is_read_and_what_to_do(damage: Damage, run: Path) -> None:
    damage(run)
    with pytest.raises(InputError, match="has schema 2; this version reads 1") as e:
        vaezoo.load(run)
    assert e.value.hint == "update vaezoo"


def test_what_nobody_may_read(run: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read all")
    for step in steps(run):
        (step / "model.safetensors").chmod(0)
    assert outcome(lambda: vaezoo.load(run)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        WEIGHTS["header of 2^63"],
        WEIGHTS["NaN"],
        MANIFEST["up"],
        MANIFEST["schema of the future"],
        STATE["deep"],
        NAMES["with an escape"],
        RUN["latent_dim of a terabyte"],
        RUN["option code"],
        RUN["model with a newline"],
        FILES["model.safetensors fifo"],
        FILES["run.json sparse"],
        replaced("examples.safetensors", zeros),
    ],
)
def test_the_commands_say_so_in_two_lines(damage: Damage, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage(run)
    for arguments in (["sample", "run"], ["train", "--resume", "run"], ["export", "run", "--onnx"]):
        if arguments[0] == "train" and damage is not RUN["option code"]:
            continue
        with pytest.raises(SystemExit) as e:
            main(arguments)
        errors = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("vaezoo: warning")]
        assert e.value.code in (2, 3) and len(errors) == 2, errors
        assert errors[0].startswith("vaezoo: error: ") and errors[1].startswith("hint: ")
    assert os.listdir() == ["run"]

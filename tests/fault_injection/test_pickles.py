"""Files that run code when they are unpickled: wherever vaezoo reads one, it refuses it and runs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from forging import stopped_run, update_manifest

import vaezoo
from vaezoo.errors import VaezooError
from vaezoo.evaluation import inception
from vaezoo_cli.main import main

CheckCases = Callable[[str, int, Sequence[object]], None]


class Payload:
    """Creates the file `canary` when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return open, (os.path.abspath("canary"), "w")


def plain_pickle() -> bytes:
    return pickle.dumps({"state_dict": Payload()})


def torch_zip() -> bytes:
    torch.save({"weight": torch.zeros(2), "more": Payload()}, "x.pt")
    return Path("x.pt").read_bytes()


def torch_legacy() -> bytes:
    torch.save({"more": Payload()}, "x.pt", _use_new_zipfile_serialization=False)
    return Path("x.pt").read_bytes()


def npy_objects() -> bytes:
    np.save("x.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    return Path("x.npy").read_bytes()


def npz_objects() -> bytes:
    np.savez("x.npz", x=np.array([Payload()], dtype=object))
    return Path("x.npz").read_bytes()


PICKLES = (plain_pickle, torch_zip, torch_legacy, npy_objects, npz_objects)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped_run(tmp_path_factory.mktemp("pickles"))


@pytest.fixture
def run(original: Path, inside: Path) -> Path:
    """A copy of an intact run in the current directory."""
    return shutil.copytree(original, inside / "run").relative_to(inside)


def is_refused(call: Callable[[], object]) -> bool:
    """Tells whether a call raises a VaezooError for damaged input, and the payload did not run."""
    try:
        call()
    except VaezooError as e:
        return e.exit_code == 3 and not Path("canary").exists()
    return False


def test_payload_works(inside: Path) -> None:
    pickle.loads(plain_pickle()).clear()
    assert Path("canary").exists()


@pytest.mark.parametrize("make", PICKLES)
@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "state.json", "manifest.json"])
def test_pickle_in_checkpoint(name: str, make: Callable[[], bytes], run: Path, check_cases: CheckCases) -> None:
    for checkpoint in (run / "checkpoints").glob("step-*"):
        (checkpoint / name).write_bytes(make())
        if name != "manifest.json":
            update_manifest(checkpoint)
    calls = [lambda: vaezoo.resume(run)] + ([lambda: vaezoo.load(run)] if name != "training.safetensors" else [])
    check_cases("C4", len(calls), [(name, make.__name__) for call in calls if not is_refused(call)])


@pytest.mark.parametrize("make", PICKLES)
@pytest.mark.parametrize("name", ["run.json", "result.json", "examples.safetensors"])
def test_pickle_in_run(name: str, make: Callable[[], bytes], run: Path, check_cases: CheckCases) -> None:
    (run / name).write_bytes(make())
    check_cases("C4", 1, [] if is_refused(lambda: vaezoo.load(run)) else [(name, make.__name__)])


@pytest.mark.parametrize("make", PICKLES)
@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.pkl", "x.ckpt", "x.npy", "x.npz", "x.safetensors"])
def test_pickle_as_argument(name: str, make: Callable[[], bytes], inside: Path, check_cases: CheckCases) -> None:
    content = make()
    Path(name).write_bytes(content)
    calls = [lambda: vaezoo.load(name), lambda: vaezoo.resume(name), lambda: vaezoo.load_data(f"./{name}")]
    calls.append(lambda: vaezoo.runtime.load(name))
    check_cases("C4", len(calls), [(name, make.__name__) for call in calls if not is_refused(call)])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(
    "arguments", [["sample", "x"], ["train", "--resume", "x"], ["train", "mlp-vae", "--data", "./x"]]
)
def test_distributed_checkpoint(arguments: list[str], inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dcp.save({"weight": torch.zeros(2)}, checkpoint_id="x", no_dist=True)
    Path("x/.metadata").write_bytes(plain_pickle())
    with pytest.raises(SystemExit) as e:
        main(arguments)
    errors = capsys.readouterr().err.splitlines()
    assert e.value.code == 3 and len(errors) == 2 and not Path("canary").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.npy", "x.npz"])
def test_commands_refuse_pickles(
    name: str, inside: Path, capsys: pytest.CaptureFixture[str], check_cases: CheckCases
) -> None:
    Path(name).write_bytes({"x.pt": torch_zip, "x.npy": npy_objects, "x.npz": npz_objects}[name]())
    commands = (["sample", name], ["reconstruct", name], ["export", name, "--onnx"], ["verify", name])
    bad = []
    for arguments in (*commands, ["train", "--resume", name], ["train", "mlp-vae", "--data", f"./{name}"]):
        with pytest.raises(SystemExit) as e:
            main(arguments)
        errors = capsys.readouterr().err.splitlines()
        if e.value.code != 3 or len(errors) != 2 or Path("canary").exists():
            bad.append((name, arguments, errors))
    check_cases("C4", 6, bad)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("make", PICKLES)
def test_pickle_as_inception_weights(
    make: Callable[[], bytes], inside: Path, monkeypatch: pytest.MonkeyPatch, check_cases: CheckCases
) -> None:
    """The hash matches: the published one has 32 bits, so one in four billion files fits."""
    Path("x.pth").write_bytes(make())
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(Path("x.pth").read_bytes()).hexdigest()[:8])
    check_cases(
        "C4", 1, [] if is_refused(lambda: inception.load_inception(Path("x.pth"))) else [("inception", make.__name__)]
    )


def test_run_record_calls_nothing(run: Path, check_cases: CheckCases) -> None:
    record, bad = json.loads((run / "run.json").read_text()), []
    for field in ("_instantiator", "_target_", "class_path", "__reduce__", "py/object"):
        for place in ("options", "data", "source", "training"):
            changed = record | {place: record[place] | {field: "os.system", "args": ["touch canary"]}}
            (run / "run.json").write_text(json.dumps(changed))
            bad += [] if is_refused(lambda: vaezoo.load(run)) else [(place, field)]
    check_cases("C4", 20, bad)

"""Files that would run code when unpickled, wherever runs, weights or data are read: refused, and no code is run."""

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
from forging import seal, stopped_run

import vaezoo
from vaezoo.errors import VaezooError
from vaezoo.evaluation import inception
from vaezoo_cli.main import main

Tell = Callable[[str, int, Sequence[object]], None]


class Payload:
    """Unpickled, it makes the file `canary`."""

    def __reduce__(self) -> tuple[object, ...]:
        return open, (os.path.abspath("canary"), "w")


def pickled() -> bytes:
    return pickle.dumps({"state_dict": Payload()})


def zip_of_torch() -> bytes:
    torch.save({"weight": torch.zeros(2), "more": Payload()}, "x.pt")
    return Path("x.pt").read_bytes()


def legacy_of_torch() -> bytes:
    torch.save({"more": Payload()}, "x.pt", _use_new_zipfile_serialization=False)
    return Path("x.pt").read_bytes()


def objects() -> bytes:
    np.save("x.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    return Path("x.npy").read_bytes()


def archive_of_objects() -> bytes:
    np.savez("x.npz", x=np.array([Payload()], dtype=object))
    return Path("x.npz").read_bytes()


MADE = (pickled, zip_of_torch, legacy_of_torch, objects, archive_of_objects)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped_run(tmp_path_factory.mktemp("pickles"))


@pytest.fixture
def run(whole: Path, inside: Path) -> Path:
    return shutil.copytree(whole, inside / "run").relative_to(inside)


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except VaezooError as e:
        return e.exit_code == 3 and not Path("canary").exists()
    return False


def test_the_payload_would_work(inside: Path) -> None:
    pickle.loads(pickled()).clear()
    assert Path("canary").exists()


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "state.json", "manifest.json"])
def test_in_a_checkpoint(name: str, make: Callable[[], bytes], run: Path, tell: Tell) -> None:
    for step in (run / "checkpoints").glob("step-*"):
        (step / name).write_bytes(make())
        if name != "manifest.json":
            seal(step)
    calls = [lambda: vaezoo.resume(run)] + ([lambda: vaezoo.load(run)] if name != "training.safetensors" else [])
    tell("C4", len(calls), [(name, make.__name__) for call in calls if not refused(call)])


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("name", ["run.json", "result.json", "examples.safetensors"])
def test_beside_the_checkpoints(name: str, make: Callable[[], bytes], run: Path, tell: Tell) -> None:
    (run / name).write_bytes(make())
    tell("C4", 1, [] if refused(lambda: vaezoo.load(run)) else [(name, make.__name__)])


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.pkl", "x.ckpt", "x.npy", "x.npz", "x.safetensors"])
def test_as_a_run_or_as_data(name: str, make: Callable[[], bytes], inside: Path, tell: Tell) -> None:
    content = make()
    Path(name).write_bytes(content)
    calls = [lambda: vaezoo.load(name), lambda: vaezoo.resume(name), lambda: vaezoo.load_data(f"./{name}")]
    calls.append(lambda: vaezoo.runtime.load(name))
    tell("C4", len(calls), [(name, make.__name__) for call in calls if not refused(call)])


@pytest.mark.parametrize(
    "arguments", [["sample", "x"], ["train", "--resume", "x"], ["train", "mlp-vae", "--data", "./x"]]
)
def test_a_distributed_checkpoint(arguments: list[str], inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dcp.save({"weight": torch.zeros(2)}, checkpoint_id="x", no_dist=True)
    Path("x/.metadata").write_bytes(pickled())
    with pytest.raises(SystemExit) as e:
        main(arguments)
    errors = capsys.readouterr().err.splitlines()
    assert e.value.code == 3 and len(errors) == 2 and not Path("canary").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.npy", "x.npz"])
def test_by_the_commands(name: str, inside: Path, capsys: pytest.CaptureFixture[str], tell: Tell) -> None:
    Path(name).write_bytes({"x.pt": zip_of_torch, "x.npy": objects, "x.npz": archive_of_objects}[name]())
    commands = (["sample", name], ["reconstruct", name], ["export", name, "--onnx"], ["verify", name])
    bad = []
    for arguments in (*commands, ["train", "--resume", name], ["train", "mlp-vae", "--data", f"./{name}"]):
        with pytest.raises(SystemExit) as e:
            main(arguments)
        errors = capsys.readouterr().err.splitlines()
        if e.value.code != 3 or len(errors) != 2 or Path("canary").exists():
            bad.append((name, arguments, errors))
    tell("C4", 6, bad)


@pytest.mark.parametrize("make", MADE)
def test_as_weights_of_inception(
    make: Callable[[], bytes], inside: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    """Forged, so that the hash begins as it should: one of four billion files does."""
    Path("x.pth").write_bytes(make())
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(Path("x.pth").read_bytes()).hexdigest()[:8])
    tell("C4", 1, [] if refused(lambda: inception.load(Path("x.pth"))) else [("inception", make.__name__)])


def test_a_description_that_names_what_to_call(run: Path, tell: Tell) -> None:
    told, bad = json.loads((run / "run.json").read_text()), []
    for field in ("_instantiator", "_target_", "class_path", "__reduce__", "py/object"):
        for place in ("options", "data", "source", "training"):
            changed = told | {place: told[place] | {field: "os.system", "args": ["touch canary"]}}
            (run / "run.json").write_text(json.dumps(changed))
            bad += [] if refused(lambda: vaezoo.load(run)) else [(place, field)]
    tell("C4", 20, bad)

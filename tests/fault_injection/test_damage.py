"""Accidents: flipped bits, truncated files, and exchanged files and tensors.

Manifest, weights, training state and state.json are hashed, so any change is refused. run.json, result.json and the
examples have no hash. A flipped bit there may give another valid value, such as a seed, a grey level or a name. The
tests therefore require that the run is refused or its VAE is the same, and that only a VaezooError is raised.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from forging import join_safetensors, split_safetensors
from injector import ALL_FAULTS

import vaezoo
from vaezoo import Run, TrainConfig
from vaezoo.errors import InputError, VaezooError
from vaezoo.training.checkpoint import find_checkpoint, open_checkpoint
from vaezoo.training.run_files import read_examples, read_result

CheckCases = Callable[[str, int, Sequence[object]], None]
MEMORY = Path("/dev/shm")  # a hundred thousand writes use no disk there
FILES = ("model.safetensors", "objective.safetensors", "training.safetensors", "state.json", "manifest.json")
SAMPLE_SIZE = 150  # flips or cuts of a file, unless all are tested
rng = random.Random(0)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """A vae-gan after two steps, which has all files that a run can have."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        data = vaezoo.from_arrays(images, x_test=images[:3])
        config = TrainConfig(steps=2, batch_size=10, eval_every=1, ema_decay=0.9, device="cpu")
        options = {"latent_dim": 1, "channels": [2]}
        yield vaezoo.train("vae-gan", data, options=options, config=config, out=Path(folder) / "run")


@pytest.fixture
def checkpoint(run: Run, tmp_path: Path) -> Iterator[Path]:
    """The checkpoint to damage. It is restored afterwards."""
    path = run.checkpoint.path
    kept = shutil.copytree(path, tmp_path / "kept")
    yield path
    shutil.rmtree(path)
    shutil.copytree(kept, path)


def is_accepted(path: Path) -> bool:
    """Tells whether a checkpoint passes as complete and undamaged."""
    try:
        open_checkpoint(path)
    except InputError:
        return False
    return True


def sample(count: int) -> Sequence[int]:
    return range(count) if ALL_FAULTS else sorted(rng.sample(range(count), min(SAMPLE_SIZE, count)))


def flip_bits(file: Path) -> Iterator[int]:
    """Flips one bit of a file after another in place, and yields its number while it is flipped."""
    content = file.read_bytes()
    with file.open("r+b", buffering=0) as f:
        for bit in sample(8 * len(content)):
            for value in (content[bit // 8] ^ 1 << bit % 8, content[bit // 8]):
                f.seek(bit // 8)
                f.write(bytes([value]))
                if value != content[bit // 8]:
                    yield bit


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_detected(name: str, checkpoint: Path, check_cases: CheckCases) -> None:
    outcomes = [(bit, is_accepted(checkpoint)) for bit in flip_bits(checkpoint / name)]
    check_cases("C2", len(outcomes), [f"{name}, bit {bit}" for bit, accepted in outcomes if accepted])
    assert is_accepted(checkpoint)  # with all bits restored


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_detected(name: str, checkpoint: Path, check_cases: CheckCases) -> None:
    content, outcomes = (checkpoint / name).read_bytes(), []
    for length in sample(len(content)):
        (checkpoint / name).write_bytes(content[:length])
        outcomes.append((length, is_accepted(checkpoint)))
    check_cases("C1", len(outcomes), [f"{name}, {length} bytes" for length, accepted in outcomes if accepted])


@pytest.mark.parametrize("name", FILES)
def test_trailing_bytes_are_detected(name: str, checkpoint: Path, check_cases: CheckCases) -> None:
    content, outcomes = (checkpoint / name).read_bytes(), []
    for more in (b"\0", b" ", b"\n", b"}", content):
        (checkpoint / name).write_bytes(content + more)
        outcomes.append(is_accepted(checkpoint))
    check_cases("C1", len(outcomes), [name for accepted in outcomes if accepted])


def test_files_of_another_step(run: Run, checkpoint: Path, tmp_path: Path, check_cases: CheckCases) -> None:
    other, kept = checkpoint.with_name("step-00000001"), tmp_path / "kept"
    assert is_accepted(other)
    mixtures = [m for n in range(1, len(FILES) + 1) for m in itertools.combinations(FILES, n)]
    bad = []
    for mixture in mixtures:  # the last one is the other checkpoint under the name of this one
        for name in FILES:
            shutil.copy((other if name in mixture else kept) / name, checkpoint / name)
        if is_accepted(checkpoint):
            bad.append(mixture)
    check_cases("C2", len(mixtures), bad)


@pytest.mark.parametrize("part", ["model", "objective", "training"])
def test_exchanged_tensors_are_detected(part: str, checkpoint: Path, check_cases: CheckCases) -> None:
    file = checkpoint / f"{part}.safetensors"
    header, payload = split_safetensors(file.read_bytes())
    names = [name for name in header if name != "__metadata__"]
    pairs = [(a, b) for a, b in itertools.combinations(names, 2) if header[a]["shape"] == header[b]["shape"]]
    bad, count = [], 0
    for a, b in pairs:
        (i, j), (k, m) = sorted(header[name]["data_offsets"] for name in (a, b))
        moved = payload[:i] + payload[k:m] + payload[j:k] + payload[i:j] + payload[m:]
        renamed = {{a: b, b: a}.get(name, name): value for name, value in header.items()}
        for content in (join_safetensors(header, moved), join_safetensors(renamed, payload)):
            file.write_bytes(content)
            count += 1
            if is_accepted(checkpoint):
                bad.append((a, b))
    assert pairs
    check_cases("C2", count, bad)


def test_damaged_checkpoint_is_skipped(checkpoint: Path) -> None:
    for name in FILES:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[:-1])
        with pytest.warns(UserWarning, match="using step 1"):
            assert find_checkpoint(checkpoint.parent, "last", None).step == 1
        with pytest.raises(InputError):
            find_checkpoint(checkpoint.parent, "2", None)
        (checkpoint / name).write_bytes(content)


def test_flipped_bits_of_run_record(run: Run, check_cases: CheckCases) -> None:
    x = torch.rand(2, *run.data.shape)
    expected, bad, count = run.vae.reconstruct(x), [], 0
    for bit in flip_bits(run.path / "run.json"):
        count += 1
        with contextlib.suppress(VaezooError):
            if not torch.equal(vaezoo.load(run.path).vae.reconstruct(x), expected):
                bad.append(f"bit {bit}")
    check_cases("C2 no hash", count, bad)


@pytest.mark.parametrize("name", ["examples.safetensors", "result.json"])
def test_flipped_bits_of_other_files(name: str, run: Run, check_cases: CheckCases) -> None:
    count = 0
    for _ in flip_bits(run.path / name):
        count += 1
        with contextlib.suppress(VaezooError):
            if name == "result.json":
                assert read_result(run.path / name).keys() == run.result.keys()
            else:
                examples = read_examples(run.path / name, run.data)
                assert examples is not None and examples.x.shape[1:] == run.data.shape and examples.x.min() >= 0
    check_cases("C2 no hash", count, [])

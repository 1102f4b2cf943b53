"""Accidents: every bit of a checkpoint flipped, every file cut at every length, files and tensors exchanged.

Manifest, weights, training state and state.json are hashed, and any change is refused. run.json, result.json and the
examples have no hash: a flip there may change a value that fits as well (a seed, a grey level, a name, an option of the
objective), so what is held is that the run is refused or its VAE the same, and that nothing but our errors comes out.
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
from forging import put_together, taken_apart
from injector import ALL

import vaezoo
from vaezoo import Run, TrainConfig
from vaezoo.errors import InputError, VaezooError
from vaezoo.training.checkpoint import find_checkpoint, open_checkpoint
from vaezoo.training.run import read_examples, read_result

Tell = Callable[[str, int, Sequence[object]], None]
MEMORY = Path("/dev/shm")  # where a hundred thousand writes take no disk
FILES = ("model.safetensors", "objective.safetensors", "training.safetensors", "state.json", "manifest.json")
SOME = 400  # flips or cuts of a file, where not all are done
rng = random.Random(0)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """A vae-gan after two steps: it has all the files that a run can have."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        data = vaezoo.from_arrays(images, x_test=images[:3])
        config = TrainConfig(steps=2, batch_size=10, eval_every=1, ema_decay=0.9, device="cpu")
        options = {"latent_dim": 1, "channels": [2]}
        yield vaezoo.train("vae-gan", data, options=options, config=config, out=Path(folder) / "run")


@pytest.fixture
def checkpoint(run: Run, tmp_path: Path) -> Iterator[Path]:
    """The checkpoint, to damage; put back afterwards."""
    path = run.checkpoint.path
    kept = shutil.copytree(path, tmp_path / "kept")
    yield path
    shutil.rmtree(path)
    shutil.copytree(kept, path)


def opened(path: Path) -> bool:
    """Whether a checkpoint is taken for whole."""
    try:
        open_checkpoint(path)
    except InputError:
        return False
    return True


def chosen(count: int) -> Sequence[int]:
    return range(count) if ALL else sorted(rng.sample(range(count), min(SOME, count)))


def flips(file: Path) -> Iterator[int]:
    """Flips bits of a file in place, one after the other, and yields the number of the one that is flipped."""
    content = file.read_bytes()
    with file.open("r+b", buffering=0) as f:
        for bit in chosen(8 * len(content)):
            for value in (content[bit // 8] ^ 1 << bit % 8, content[bit // 8]):
                f.seek(bit // 8)
                f.write(bytes([value]))
                if value != content[bit // 8]:
                    yield bit


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(name: str, checkpoint: Path, tell: Tell) -> None:
    outcomes = [(bit, opened(checkpoint)) for bit in flips(checkpoint / name)]
    tell("C2", len(outcomes), [f"{name}, bit {bit}" for bit, whole in outcomes if whole])
    assert opened(checkpoint)  # put back, it is whole


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_any_length_is_noticed(name: str, checkpoint: Path, tell: Tell) -> None:
    content, outcomes = (checkpoint / name).read_bytes(), []
    for length in chosen(len(content)):
        (checkpoint / name).write_bytes(content[:length])
        outcomes.append((length, opened(checkpoint)))
    tell("C1", len(outcomes), [f"{name}, {length} bytes" for length, whole in outcomes if whole])


@pytest.mark.parametrize("name", FILES)
def test_what_stands_behind_a_file_is_noticed(name: str, checkpoint: Path, tell: Tell) -> None:
    content, outcomes = (checkpoint / name).read_bytes(), []
    for more in (b"\0", b" ", b"\n", b"}", content):
        (checkpoint / name).write_bytes(content + more)
        outcomes.append(opened(checkpoint))
    tell("C1", len(outcomes), [name for whole in outcomes if whole])


def test_files_of_another_step_are_noticed(run: Run, checkpoint: Path, tmp_path: Path, tell: Tell) -> None:
    other, kept = checkpoint.with_name("step-00000001"), tmp_path / "kept"
    assert opened(other)
    mixtures = [m for n in range(1, len(FILES) + 1) for m in itertools.combinations(FILES, n)]
    bad = []
    for mixture in mixtures:  # all of them: the other checkpoint under this one's name
        for name in FILES:
            shutil.copy((other if name in mixture else kept) / name, checkpoint / name)
        if opened(checkpoint):
            bad.append(mixture)
    tell("C2", len(mixtures), bad)


@pytest.mark.parametrize("part", ["model", "objective", "training"])
def test_two_tensors_exchanged_are_noticed(part: str, checkpoint: Path, tell: Tell) -> None:
    file = checkpoint / f"{part}.safetensors"
    header, payload = taken_apart(file)
    names = [name for name in header if name != "__metadata__"]
    pairs = [(a, b) for a, b in itertools.combinations(names, 2) if header[a]["shape"] == header[b]["shape"]]
    bad, count = [], 0
    for a, b in pairs:
        (i, j), (k, m) = sorted(header[name]["data_offsets"] for name in (a, b))
        moved = payload[:i] + payload[k:m] + payload[j:k] + payload[i:j] + payload[m:]
        named = {{a: b, b: a}.get(name, name): value for name, value in header.items()}
        for content in (put_together(header, moved), put_together(named, payload)):
            file.write_bytes(content)
            count += 1
            if opened(checkpoint):
                bad.append((a, b))
    assert pairs
    tell("C2", count, bad)


def test_a_damaged_checkpoint_is_not_chosen(checkpoint: Path) -> None:
    for name in FILES:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[:-1])
        with pytest.warns(UserWarning, match="taking step 1"):
            assert find_checkpoint(checkpoint.parent, "last", None).step == 1
        with pytest.raises(InputError):
            find_checkpoint(checkpoint.parent, "2", None)
        (checkpoint / name).write_bytes(content)


def test_a_flipped_bit_of_the_description_is_refused_or_gives_the_same_model(run: Run, tell: Tell) -> None:
    x = torch.rand(2, *run.data.shape)
    expected, bad, count = run.vae.reconstruct(x), [], 0
    for bit in flips(run.path / "run.json"):
        count += 1
        with contextlib.suppress(VaezooError):
            if not torch.equal(vaezoo.load(run.path).vae.reconstruct(x), expected):
                bad.append(f"bit {bit}")
    tell("C2 no hash", count, bad)


@pytest.mark.parametrize("name", ["examples.safetensors", "result.json"])
def test_a_flipped_bit_beside_the_model_is_refused_or_gives_what_fits(name: str, run: Run, tell: Tell) -> None:
    count = 0
    for _ in flips(run.path / name):
        count += 1
        with contextlib.suppress(VaezooError):
            if name == "result.json":
                assert read_result(run.path / name).keys() == run.result.keys()
            else:
                examples = read_examples(run.path / name, run.data)
                assert examples is not None and examples.shape[1:] == run.data.shape and examples.min() >= 0
    tell("C2 no hash", count, [])

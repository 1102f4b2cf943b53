"""vaezoo.data.prefetch: order, errors, the end of threads, and memory."""

import itertools
import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.data.images import image_folder
from vaezoo.data.prefetch import THREAD_PREFIX, fits, prefetch, to_device_if_fits
from vaezoo.errors import InputError

CPU = torch.device("cpu")


class IndexSplit:
    """A split whose examples are their indices. It records requests and fails at one index."""

    y = None

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad
        self.requested: list[int] = []
        self.threads: set[str] = set()

    def __len__(self) -> int:
        return 1000

    def gather(self, index: torch.Tensor) -> Batch:
        self.requested.append(int(index[0]))
        self.threads.add(threading.current_thread().name)
        if self.bad in index:
            raise InputError(f"index {self.bad}", "use another")
        return Batch(index, None)


def indices(count: int) -> list[torch.Tensor]:
    return [torch.arange(4 * i, 4 * i + 4) for i in range(count)]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Sixty images of two classes."""
    rng = np.random.default_rng(0)
    for name in ("ape", "zebra"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 20])
def test_order_is_kept(workers: int, count: int) -> None:
    split = IndexSplit()
    actual = [batch.x.tolist() for batch in prefetch(split, indices(count), CPU, workers)]
    assert actual == [index.tolist() for index in indices(count)]
    assert all(name.startswith(THREAD_PREFIX) == (workers > 0) for name in split.threads)
    assert threads() == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_streamed_images_match_memory(images: Path, workers: int) -> None:
    in_memory, streamed = (image_folder.load(images, None, stream=stream)[0] for stream in (False, True))
    order = torch.randperm(60).split(7)
    for index, batch in zip(order, prefetch(streamed, order, CPU, workers), strict=True):
        assert batch.x.equal(in_memory.gather(index).x) and batch.y.equal(in_memory.gather(index).y)


def test_no_threads_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaezoo.data.prefetch.ThreadPoolExecutor", None)
    split = TensorSplit(torch.arange(20, dtype=torch.uint8), torch.arange(20))
    batches = list(prefetch(split, indices(5), CPU, 3))
    assert torch.cat([batch.x for batch in batches]).equal(split.x) and batches[1].y.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetch_is_bounded(workers: int) -> None:
    split = IndexSplit()
    for i, _ in enumerate(prefetch(split, map(torch.tensor, ([n] for n in itertools.count())), CPU, workers)):
        assert len(split.requested) <= i + 1 + workers
        if i == 30:
            break
    assert len(split.requested) >= 31


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_error_comes_at_its_batch(workers: int) -> None:
    actual = []
    with pytest.raises(InputError, match="index 30"):
        for batch in prefetch(IndexSplit(bad=30), indices(20), CPU, workers):
            actual.append(int(batch.x[0]))
    assert actual == [0, 4, 8, 12, 16, 20, 24]
    assert threads() == []


@pytest.mark.parametrize("workers", [1, 3])
def test_close_ends_all_threads(workers: int, images: Path) -> None:
    split, *_ = image_folder.load(images, None, stream=True)
    before = threading.active_count()
    with closing(prefetch(split, torch.arange(60).split(2), CPU, workers)) as batches:
        next(batches)
        assert threads() != []
    assert threads() == [] and threading.active_count() == before


def test_exception_ends_all_threads() -> None:
    with pytest.raises(KeyboardInterrupt), closing(prefetch(IndexSplit(), indices(20), CPU, 2)) as batches:
        for _ in batches:
            raise KeyboardInterrupt
    assert threads() == []


def test_threads_start_lazily() -> None:
    split = IndexSplit()
    prefetch(split, indices(5), CPU, 2)
    assert split.requested == [] and threads() == []


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "sys.exit(7)", "raise SystemExit(7)", "1 / 0", "for _ in batches: sys.exit(7)"])
def test_interpreter_can_exit(images: Path, end: str) -> None:
    script = f"""if True:
        import sys, torch
        from pathlib import Path
        from vaezoo.data.images.image_folder import load
        from vaezoo.data.prefetch import prefetch
        split = load(Path(sys.argv[1]), None, stream=True).train
        endless = iter(lambda: torch.randint(60, (200,)), None)
        batches = prefetch(split, endless, torch.device("cpu"), 3)
        next(batches)
        {end}
    """
    result = subprocess.run([sys.executable, "-c", script, images], capture_output=True, text=True, timeout=600)
    assert result.returncode == (7 if "7" in end else 1 if end else 0), result.stderr
    assert ("ZeroDivisionError" in result.stderr) if end == "1 / 0" else result.stderr == ""


def test_streamed_training_is_identical(images: Path, tmp_path: Path) -> None:
    results = []
    for stream in (False, True):
        data = vaezoo.load_data(images, stream=stream)
        config = vaezoo.TrainConfig(steps=4, batch_size=8, device="cpu")
        results.append(vaezoo.train("mlp-vae", data, config=config, out=tmp_path / f"run-{stream}").result)
    assert results[0] == results[1]


MEASURE_PEAK = """if True:
    import sys, torch
    from pathlib import Path
    from vaezoo.data.images.image_folder import load
    from vaezoo.data.prefetch import prefetch

    def peak():  # getrusage would include the parent's peak, which Linux keeps when a child starts
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    torch.set_num_threads(1)
    stream = sys.argv[2] == "stream"
    torch.ones(8, 8) @ torch.ones(8, 8)
    before = peak()
    split = load(Path(sys.argv[1]), None, stream=stream).train
    order = torch.randperm(len(split)).split(8)
    assert sum(len(batch.x) for batch in prefetch(split, order, torch.device("cpu"), 2)) == len(split)
    print(split.nbytes / 2**20, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc of Linux")
def test_memory_is_bounded(tmp_path: Path) -> None:
    for i in range(1500):
        if i < 10:
            Image.new("RGB", (512, 512), (25 * i, 100, 200)).save(tmp_path / f"{i:04}.png")
        else:
            os.link(tmp_path / f"{i % 10:04}.png", tmp_path / f"{i:04}.png")
    command = [sys.executable, "-c", MEASURE_PEAK, tmp_path, "stream"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    decoded, growth = map(float, result.stdout.split())
    assert decoded > 1000 and growth < 150, growth


# --- devices


def test_fits(monkeypatch: pytest.MonkeyPatch, images: Path) -> None:
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr("vaezoo.data.prefetch._is_on", lambda split, device: False)
    split = TensorSplit(torch.zeros(100, 10), None)
    assert split.nbytes == 4000
    for free, expected in ((8000, True), (7999, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert fits(split, cuda) is expected
        assert fits(split, CPU)
    assert to_device_if_fits(split, cuda) is split
    streamed, *_ = image_folder.load(images, None, stream=True)
    assert not fits(streamed, CPU) and not fits(streamed, cuda) and to_device_if_fits(streamed, cuda) is streamed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_on_cuda(workers: int, images: Path) -> None:
    cuda = torch.device("cuda")
    in_memory, streamed = (image_folder.load(images, None, stream=stream)[0] for stream in (False, True))
    order = torch.randperm(60).split(7)
    for split in (in_memory, streamed, to_device_if_fits(in_memory, cuda)):
        for index, batch in zip(order, prefetch(split, order, cuda, workers), strict=True):
            assert batch.x.is_cuda and batch.y.is_cuda
            expected = in_memory.gather(index)
            assert batch.x.cpu().equal(expected.x) and batch.y.cpu().equal(expected.y)

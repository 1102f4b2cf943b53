"""Batches prepared ahead: order, errors, ends of threads, and memory."""

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
from vaezoo.data.prefetch import fits, prefetch, to_device_if_fits
from vaezoo.errors import InputError

CPU = torch.device("cpu")


class Numbers:
    """A part whose examples are their numbers; it counts what is asked of it and fails at one of them."""

    y = None

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad
        self.asked: list[int] = []
        self.threads: set[str] = set()

    def __len__(self) -> int:
        return 1000

    def gather(self, index: torch.Tensor) -> Batch:
        self.asked.append(int(index[0]))
        self.threads.add(threading.current_thread().name)
        if self.bad in index:
            raise InputError(f"number {self.bad}", "take another")
        return Batch(index, None)


def indices(count: int) -> list[torch.Tensor]:
    return [torch.arange(4 * i, 4 * i + 4) for i in range(count)]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vaezoo-ahead")]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Sixty images in two classes."""
    rng = np.random.default_rng(0)
    for name in ("ape", "zebra"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(30):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 20])
def test_the_order_is_kept(workers: int, count: int) -> None:
    part = Numbers()
    got = [batch.x.tolist() for batch in prefetch(part, indices(count), CPU, workers)]
    assert got == [index.tolist() for index in indices(count)]
    assert all(name.startswith("vaezoo-ahead") == (workers > 0) for name in part.threads)
    assert threads() == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_streamed_images_come_as_they_are_in_memory(images: Path, workers: int) -> None:
    held, streamed = (image_folder.load(images, None, stream=stream)[0] for stream in (False, True))
    order = torch.randperm(60).split(7)
    for index, batch in zip(order, prefetch(streamed, order, CPU, workers), strict=True):
        assert batch.x.equal(held.gather(index).x) and batch.y.equal(held.gather(index).y)


def test_a_split_on_the_device_needs_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaezoo.data.prefetch.ThreadPoolExecutor", None)
    part = TensorSplit(torch.arange(20, dtype=torch.uint8), torch.arange(20))
    batches = list(prefetch(part, indices(5), CPU, 3))
    assert torch.cat([batch.x for batch in batches]).equal(part.x) and batches[1].y.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_than_the_next_ones_are_prepared(workers: int) -> None:
    part = Numbers()
    for i, _ in enumerate(prefetch(part, map(torch.tensor, ([n] for n in itertools.count())), CPU, workers)):
        assert len(part.asked) <= i + 1 + workers
        if i == 30:
            break
    assert len(part.asked) >= 31


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_comes_at_its_batch(workers: int) -> None:
    got = []
    with pytest.raises(InputError, match="number 30"):
        for batch in prefetch(Numbers(bad=30), indices(20), CPU, workers):
            got.append(int(batch.x[0]))
    assert got == [0, 4, 8, 12, 16, 20, 24]
    assert threads() == []


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_early_leaves_no_thread(workers: int, images: Path) -> None:
    part, _ = image_folder.load(images, None, stream=True)
    before = threading.active_count()
    with closing(prefetch(part, torch.arange(60).split(2), CPU, workers)) as batches:
        next(batches)
        assert threads() != []
    assert threads() == [] and threading.active_count() == before


def test_an_exception_in_the_loop_leaves_no_thread() -> None:
    with pytest.raises(KeyboardInterrupt), closing(prefetch(Numbers(), indices(20), CPU, 2)) as batches:
        for _ in batches:
            raise KeyboardInterrupt
    assert threads() == []


def test_nothing_starts_before_the_first_batch_is_asked_for() -> None:
    part = Numbers()
    prefetch(part, indices(5), CPU, 2)
    assert part.asked == [] and threads() == []


@pytest.mark.parametrize("end", ["", "sys.exit(7)", "raise SystemExit(7)", "1 / 0", "for _ in batches: sys.exit(7)"])
def test_the_interpreter_ends_while_batches_are_prepared(images: Path, end: str) -> None:
    script = f"""if True:
        import sys, torch
        from pathlib import Path
        from vaezoo.data.images.image_folder import load
        from vaezoo.data.prefetch import ahead
        part, _ = load(Path(sys.argv[1]), None, stream=True)
        endless = iter(lambda: torch.randint(60, (200,)), None)
        batches = ahead(part, endless, torch.device("cpu"), 3)
        next(batches)
        {end}
    """
    done = subprocess.run([sys.executable, "-c", script, images], capture_output=True, text=True, timeout=120)
    assert done.returncode == (7 if "7" in end else 1 if end else 0), done.stderr
    assert ("ZeroDivisionError" in done.stderr) if end == "1 / 0" else done.stderr == ""


def test_training_on_streamed_images_gives_the_same_losses(images: Path, tmp_path: Path) -> None:
    results = []
    for stream in (False, True):
        data = vaezoo.load_data(images, stream=stream)
        config = vaezoo.TrainConfig(steps=4, batch_size=8, device="cpu")
        results.append(vaezoo.train("mlp-vae", data, config=config, out=tmp_path / f"run-{stream}").result)
    assert results[0] == results[1]


PEAK = """if True:
    import sys, torch
    from pathlib import Path
    from vaezoo.data.images.image_folder import load
    from vaezoo.data.prefetch import ahead

    def peak():  # getrusage would count the parent's, too: Linux keeps its peak when a child is started
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    torch.set_num_threads(1)
    stream = sys.argv[2] == "stream"
    torch.ones(8, 8) @ torch.ones(8, 8)
    before = peak()
    part, _ = load(Path(sys.argv[1]), None, stream=stream)
    total = sum(len(batch.x) for batch in ahead(part, torch.randperm(len(part)).split(8), torch.device("cpu"), 2))
    assert total == len(part)
    print(part.nbytes / 2**20, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_stays_bounded_by_a_few_batches(tmp_path: Path) -> None:
    for i in range(1500):
        if i < 10:
            Image.new("RGB", (512, 512), (25 * i, 100, 200)).save(tmp_path / f"{i:04}.png")
        else:
            os.link(tmp_path / f"{i % 10:04}.png", tmp_path / f"{i:04}.png")
    words = [sys.executable, "-c", PEAK, tmp_path]
    done = subprocess.run([*words, "stream"], capture_output=True, text=True, check=True)
    decoded, growth = map(float, done.stdout.split())
    assert decoded > 1000 and growth < 150, growth


# --- devices


def test_what_fits(monkeypatch: pytest.MonkeyPatch, images: Path) -> None:
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr("vaezoo.data.prefetch._lies_on", lambda part, device: False)
    part = TensorSplit(torch.zeros(100, 10), None)
    assert part.nbytes == 4000
    for free, fit in ((8000, True), (7999, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert fits(part, cuda) is fit
        assert fits(part, CPU)
    assert to_device_if_fits(part, cuda) is part
    streamed, _ = image_folder.load(images, None, stream=True)
    assert not fits(streamed, CPU) and not fits(streamed, cuda) and to_device_if_fits(streamed, cuda) is streamed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_to_cuda(workers: int, images: Path) -> None:
    cuda = torch.device("cuda")
    held, streamed = (image_folder.load(images, None, stream=stream)[0] for stream in (False, True))
    order = torch.randperm(60).split(7)
    for part in (held, streamed, to_device_if_fits(held, cuda)):
        for index, batch in zip(order, prefetch(part, order, cuda, workers), strict=True):
            assert batch.x.is_cuda and batch.y.is_cuda
            assert batch.x.cpu().equal(held.gather(index).x) and batch.y.cpu().equal(held.gather(index).y)

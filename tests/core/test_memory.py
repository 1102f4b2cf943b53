"""Memory sizes and out-of-memory errors."""

import math
import os
import platform
import subprocess
import sys

import pytest
import torch

from vaezoo.core import memory
from vaezoo.core.memory import is_out_of_memory, limited_to_available, machine_memory, out_of_memory, peak_memory

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")

# Each round allocates, fills and frees ten arrays of 4 MiB. Prints the page faults of the last ten rounds per round.
FAULTS = """
import resource
import sys
import numpy as np
from vaezoo.core.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for number in range(20):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(1 << 19) for _ in range(10)]
    del arrays
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


@LINUX
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again():
    page = os.sysconf("SC_PAGESIZE")
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("default", "keep")
    )
    assert kept < (4 << 20) / page  # less than one of the ten arrays
    assert given_back > kept


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("no memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Failed to allocate memory for requested buffer of size 1"),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_out_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_hint_doubles_accumulation_steps():
    error = out_of_memory(256, 2, torch.device("cpu"))
    assert "256" in error.message and "--grad-accum-steps 4" in error.hint


def test_hint_never_splits_single_examples():
    assert "--grad-accum-steps" not in out_of_memory(2, 2, torch.device("cpu")).hint


@LINUX
def test_allocations_beyond_memory_fail(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 27)
    monkeypatch.setattr(memory, "read_sizes", lambda path, read=memory.read_sizes: read(path) | {"SwapFree": 0})
    with limited_to_available():
        torch.empty(1 << 20, dtype=torch.uint8)
        with pytest.raises(RuntimeError) as e:
            torch.empty(1 << 29, dtype=torch.uint8)
    assert is_out_of_memory(e.value)
    torch.empty(1 << 29, dtype=torch.uint8)  # the limit is gone


@pytest.mark.parametrize("text", ["", "MemAvailable: unknown"])
def test_no_limit_where_sizes_are_unknown(text, monkeypatch, tmp_path):
    (tmp_path / "sizes").write_text(text)
    monkeypatch.setattr(memory, "read_sizes", lambda path, read=memory.read_sizes: read(tmp_path / "sizes"))
    with limited_to_available():
        assert len(torch.empty(1000)) == 1000


def test_peak_memory_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(torch.device("cpu")) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows does not say")
def test_peak_memory_is_in_bytes():
    assert 1 << 20 < peak_memory(torch.device("cpu")) < machine_memory()


def test_machine_memory_is_unknown(monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert machine_memory() == math.inf

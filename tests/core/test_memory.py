"""Memory sizes and out-of-memory errors."""

import math
import os
import sys

import pytest
import torch

from vaezoo.core.memory import is_out_of_memory, machine_memory, out_of_memory, peak_memory


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


def test_peak_memory_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(torch.device("cpu")) == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows does not say")
def test_peak_memory_is_in_bytes():
    assert 1 << 20 < peak_memory(torch.device("cpu")) < machine_memory()


def test_machine_memory_is_unknown(monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert machine_memory() == math.inf

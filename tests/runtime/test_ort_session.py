"""Sessions run on the requested provider, or an error names what is missing."""

import os

import onnxruntime as ort
import pytest
import torch

from vaezoo.doctor import one_node
from vaezoo.errors import InputError, VaezooError
from vaezoo.runtime import ort_session
from vaezoo.runtime.ort_session import (
    RECORD_PLACEMENT,
    missing_libraries,
    open_session,
    placement,
    unresolved_libraries,
)

needs_no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_session_reports_node_placement():
    session = open_session(one_node(), threads=1, entries=RECORD_PLACEMENT)
    assert session.run(None, {"x": [-2.0]})[0] == [0.0]
    assert session.get_session_options().intra_op_num_threads == 1
    assert placement(session) == {"CPUExecutionProvider": 1}


@pytest.mark.gpu
@needs_cuda
def test_all_nodes_run_on_cuda():
    session = open_session(one_node(), "cuda", entries=RECORD_PLACEMENT)
    assert placement(session) == {"CUDAExecutionProvider": 1}


def test_invalid_graph_is_refused():
    with pytest.raises(InputError, match="cannot load the graph: Failed to load model") as e:
        open_session(b"\x08\x0a\xff")
    assert "ONNXRuntimeError" not in e.value.message


@needs_no_cuda
def test_missing_cuda_is_an_error(capfd):
    with pytest.raises(VaezooError) as e:
        open_session(one_node(), "cuda")
    assert ort_session.DRIVER in e.value.message or "no CUDA provider" in e.value.message
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("missing", "words", "hint"),
    [
        (["libcurand.so.10", ort_session.DRIVER], "missing libcurand.so.10, libcuda.so.1", ort_session.INSTALL_GPU),
        (["libcurand.so.10"], "missing libcurand.so.10", ort_session.INSTALL_GPU),
        ([ort_session.DRIVER], "the NVIDIA driver (libcuda.so.1) is missing", "driver"),
    ],
)
def test_missing_libraries_are_named(monkeypatch, missing, words, hint):
    monkeypatch.setattr(ort_session, "missing_libraries", lambda: missing)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(VaezooError) as e:
        open_session(one_node(), "cuda")
    assert words in e.value.message and hint in e.value.hint


def test_package_without_cuda_provider(monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(VaezooError, match="has no CUDA provider") as e:
        open_session(one_node(), "cuda")
    assert e.value.hint == ort_session.REINSTALL_GPU


@needs_no_cuda
def test_silent_fallback_is_an_error(monkeypatch):
    monkeypatch.setattr(ort_session, "require_cuda", lambda: None)
    with pytest.raises(VaezooError, match="cuda was requested, but ONNX Runtime runs on CPUExecutionProvider"):
        open_session(one_node(), "cuda")


def test_missing_onnxruntime_has_a_hint(monkeypatch):
    monkeypatch.setattr(ort_session, "has_runtime", lambda: False)
    with pytest.raises(VaezooError, match="ONNX Runtime is not installed") as e:
        open_session(one_node())
    assert e.value.hint == "pip install onnxruntime"


@pytest.mark.skipif(os.name == "nt", reason="runs a shell script")
def test_unresolved_libraries_come_from_ldd(tmp_path, monkeypatch):
    assert unresolved_libraries(tmp_path / "nothing.so") == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unresolved_libraries(tmp_path / "nothing.so") == []
    (tmp_path / "ldd").write_text(
        "#!/bin/sh\nprintf '\\tlibcurand.so.10 => not found\\n\\tlibc.so.6 => /lib/c (0x1)\\n'\n"
    )
    (tmp_path / "ldd").chmod(0o755)
    assert unresolved_libraries(tmp_path / "nothing.so") == ["libcurand.so.10"]


@pytest.mark.skipif("CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu")
def test_packaged_cuda_libraries_load():
    assert set(missing_libraries()) <= {ort_session.DRIVER}

"""The provider that was asked for is the one that runs, or an error names what it lacks."""

import onnxruntime as ort
import pytest
import torch

from vaezoo import doctor
from vaezoo.doctor import examine, one_node
from vaezoo.errors import InputError, VaezooError
from vaezoo.runtime import ort_session
from vaezoo.runtime.ort_session import RECORD_PLACEMENT, missing_libraries, needed_libraries, open_session, placement

needs_no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_a_session_runs_and_says_where_each_node_runs():
    session = open_session(one_node(), threads=1, entries=RECORD_PLACEMENT)
    assert session.run(None, {"x": [-2.0]})[0] == [0.0]
    assert session.get_session_options().intra_op_num_threads == 1
    assert placement(session) == {"CPUExecutionProvider": 1}


@needs_cuda
def test_every_node_runs_on_cuda_where_cuda_was_asked_for():
    session = open_session(one_node(), "cuda", entries=RECORD_PLACEMENT)
    assert placement(session) == {"CUDAExecutionProvider": 1}


def test_what_is_no_graph_is_an_input_error():
    with pytest.raises(InputError, match="cannot load the graph: Failed to load model") as e:
        open_session(b"\x08\x0a\xff")
    assert "ONNXRuntimeError" not in e.value.message


@needs_no_cuda
def test_cuda_without_a_driver_is_never_a_silent_cpu_run(capfd):
    with pytest.raises(VaezooError) as e:
        open_session(one_node(), "cuda")
    assert ort_session.DRIVER in e.value.message or "no CUDA provider" in e.value.message
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    ("missing", "words", "mend"),
    [
        (["libcurand.so.10", ort_session.DRIVER], "misses libcurand.so.10, libcuda.so.1", ort_session.INSTALL_GPU),
        (["libcurand.so.10"], "misses libcurand.so.10", ort_session.INSTALL_GPU),
        ([ort_session.DRIVER], "no NVIDIA driver", "driver"),
    ],
)
def test_missing_libraries_are_named_with_what_mends_them(monkeypatch, missing, words, mend):
    monkeypatch.setattr(ort_session, "missing_libraries", lambda: missing)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(VaezooError) as e:
        open_session(one_node(), "cuda")
    assert words in e.value.message and mend in e.value.hint


def test_a_package_without_the_cuda_provider_is_told(monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(VaezooError, match="has no CUDA provider") as e:
        open_session(one_node(), "cuda")
    assert e.value.hint == ort_session.REPLACE


@needs_no_cuda
def test_a_provider_that_does_not_come_up_is_an_error(monkeypatch):
    monkeypatch.setattr(ort_session, "require_cuda", lambda: None)
    with pytest.raises(VaezooError, match="cuda was asked for, but ONNX Runtime runs on CPUExecutionProvider"):
        open_session(one_node(), "cuda")


def test_without_onnxruntime_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(ort_session, "has_runtime", lambda: False)
    with pytest.raises(VaezooError, match="ONNX Runtime is not installed") as e:
        open_session(one_node())
    assert e.value.hint == "pip install onnxruntime"


def test_needed_libraries_come_from_the_loader(tmp_path, monkeypatch):
    assert needed_libraries(tmp_path / "nothing.so") == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert needed_libraries(tmp_path / "nothing.so") == []
    (tmp_path / "ldd").write_text(
        "#!/bin/sh\nprintf '\\tlibcurand.so.10 => not found\\n\\tlibc.so.6 => /lib/c (0x1)\\n'\n"
    )
    (tmp_path / "ldd").chmod(0o755)
    assert needed_libraries(tmp_path / "nothing.so") == ["libcurand.so.10"]


@pytest.mark.skipif("CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu")
def test_the_libraries_that_came_with_packages_are_found():
    assert set(missing_libraries()) <= {ort_session.DRIVER}


def test_the_doctor_s_graph_is_valid():
    import onnx

    model = onnx.load_from_string(one_node())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu"]


def test_the_doctor_tells_what_is_here():
    findings = {f.subject: f for f in examine()}
    assert findings["torch"].state == torch.__version__.split("+")[0] or findings["torch"].state == torch.__version__
    assert findings["onnxruntime on cpu"].state == "loads and runs" and findings["onnxruntime on cpu"].mend is None
    cuda = findings["onnxruntime on cuda"]
    assert (cuda.mend is None) == (cuda.state == "loads and runs")
    assert all(f.mend != "" for f in findings.values())


def test_the_doctor_finds_both_packages_and_says_how_to_mend_it(monkeypatch):
    monkeypatch.setattr(doctor, "installed_packages", lambda: {"onnxruntime": "1.31", "onnxruntime-gpu": "1.30"})
    finding = next(f for f in examine() if f.subject == "onnxruntime")
    assert "onnxruntime 1.31 and onnxruntime-gpu 1.30" in finding.state and finding.mend == ort_session.REPLACE


def test_the_doctor_works_where_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(doctor, "has_runtime", lambda: False)
    monkeypatch.setattr(doctor, "installed_packages", dict)

    def missing(name):
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    findings = {f.subject: f for f in examine()}
    assert findings["onnx"].mend == "pip install onnx"
    assert findings["onnxruntime"].mend == "pip install onnxruntime"

"""`vaezoo doctor`: what is installed, what loads, and fixes."""

import torch

from vaezoo import doctor
from vaezoo.doctor import examine, one_node
from vaezoo.runtime import ort_session


def test_doctor_graph_is_valid():
    import onnx

    model = onnx.load_from_string(one_node())
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu"]


def test_doctor_reports_versions_and_providers():
    findings = {f.subject: f for f in examine()}
    assert findings["torch"].state == torch.__version__.split("+")[0] or findings["torch"].state == torch.__version__
    assert findings["onnxruntime on cpu"].state == "loads and runs" and findings["onnxruntime on cpu"].fix is None
    cuda = findings["onnxruntime on cuda"]
    assert (cuda.fix is None) == (cuda.state == "loads and runs")
    assert all(f.fix != "" for f in findings.values())


def test_doctor_finds_conflicting_packages(monkeypatch):
    monkeypatch.setattr(doctor, "installed_packages", lambda: {"onnxruntime": "1.31", "onnxruntime-gpu": "1.30"})
    finding = next(f for f in examine() if f.subject == "onnxruntime")
    assert "onnxruntime 1.31 and onnxruntime-gpu 1.30" in finding.state and finding.fix == ort_session.REINSTALL_GPU


def test_doctor_without_any_package(monkeypatch):
    monkeypatch.setattr(doctor, "has_runtime", lambda: False)
    monkeypatch.setattr(doctor, "installed_packages", dict)

    def missing(name):
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    findings = {f.subject: f for f in examine()}
    assert findings["onnx"].fix == "pip install onnx"
    assert findings["vaezoo"].fix == "run 'pip install .' in vaezoo's source folder"
    assert findings["onnxruntime"].fix == "pip install onnxruntime"

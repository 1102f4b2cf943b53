"""The description of the machine."""

from pathlib import Path

from vaezoo.core.environment import cpu_name, environment


def test_cpu_name_without_proc(monkeypatch):
    def fail(self):
        raise FileNotFoundError(str(self))

    monkeypatch.setattr(Path, "read_text", fail)
    assert cpu_name()


def test_missing_packages_are_omitted():
    versions = environment(("torch", "no-such-package"))["versions"]
    assert list(versions) == ["torch"]

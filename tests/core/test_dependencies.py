"""Hints say how to install an extra from where the package came from."""

import json
from importlib.metadata import PathDistribution

import pytest

from vaezoo.core import dependencies
from vaezoo.core.dependencies import eval_dependencies, install_hint
from vaezoo.errors import VaezooError

METADATA = """Metadata-Version: 2.4
Name: vaezoo
Version: 1.0
Requires-Dist: torch>=2.10
Requires-Dist: matplotlib>=3.11; extra == 'plot'
Requires-Dist: scikit-learn; extra == 'eval'
Requires-Dist: torchmetrics; python_version >= '3.11' and extra == "eval"
"""
PACKAGES = "install the packages of the extra 'eval': scikit-learn, torchmetrics"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Returns a function that pretends that vaezoo was installed from some place."""

    def install(source: dict[str, object] | None) -> None:
        folder = tmp_path / "vaezoo-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(METADATA)
        if source is not None:
            (folder / "direct_url.json").write_text(json.dumps(source))
        monkeypatch.setattr(dependencies.Distribution, "from_name", lambda name: PathDistribution(folder))

    return install


@pytest.mark.parametrize(("editable", "flag"), [(True, "-e "), (False, "")])
def test_folder_is_installed_with_extra(installed, tmp_path, editable, flag):
    clone = tmp_path / "a clone"
    clone.mkdir()
    installed({"url": clone.as_uri(), "dir_info": {"editable": editable}})
    assert install_hint("eval") == f'pip install {flag}"{clone}[eval]"'


@pytest.mark.parametrize(
    "source",
    [
        None,
        {"url": "file:///gone/for/good", "dir_info": {}},
        {"url": "file:///tmp/vaezoo-1.0-py3-none-any.whl", "archive_info": {}},
        {"url": "https://example.org/vaezoo.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
    ],
    ids=["no record", "missing folder", "wheel", "git"],
)
def test_otherwise_packages_are_listed(installed, source):
    installed(source)
    assert install_hint("eval") == PACKAGES
    assert install_hint("plot") == "install the packages of the extra 'plot': matplotlib>=3.11"


def test_uninstalled_package_has_hint(monkeypatch):
    def missing(name):
        raise dependencies.PackageNotFoundError(name)

    monkeypatch.setattr(dependencies.Distribution, "from_name", missing)
    assert "the extra 'eval'" in install_hint("eval")


def test_missing_package_is_explained(installed):
    installed(None)
    with pytest.raises(VaezooError, match="no_such_module") as e, eval_dependencies():
        import no_such_module  # noqa: F401
    assert e.value.hint == PACKAGES

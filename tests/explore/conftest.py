"""Pages of `vaezoo explore`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from explore_pages import BROWSER, DRIVER, FLAGS, Browser, make_run, require_package

from vaezoo import export_onnx
from vaezoo.explore.page import write_page
from vaezoo.explore.web_runtime import WASM, from_copy


@pytest.fixture
def fake_runtime(tmp_path):
    """A folder with the names of onnxruntime-web's files."""
    folder = tmp_path / "onnxruntime"
    folder.mkdir()
    for name in WASM:
        (folder / name).write_text("// not the runtime")
    return folder


@pytest.fixture(scope="session")
def explored(digits, tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """A function that returns the export of a model and its page."""

    @functools.cache
    def explored(name):
        runtime = from_copy(require_package("onnxruntime-web"))
        folder = tmp_path_factory.mktemp("explored")
        export = export_onnx(make_run(name, digits, folder / "run"), folder / name).path
        return export, write_page(export, folder / "page", {file: runtime[file] for file in WASM}, name)

    return explored


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory):
    if BROWSER is None or DRIVER is None:
        pytest.skip("no Chromium with its driver is installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield Browser(driver)
    driver.quit()


@pytest.fixture
def browser(shared_browser):
    yield shared_browser
    shared_browser.close()

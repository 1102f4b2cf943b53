"""Measure the page of `vaezoo explore` in headless Chromium with WASM.

    python benchmarks/explore.py --runtime web [--rounds N]    measures; writes results/explore-cpu.json and the table
    python benchmarks/explore.py --tables                      only writes the table, from the existing results

Needs selenium, Chromium with chromedriver, and a copy of onnxruntime-web, which `make browser` puts into web/. Each
load has an address of its own, so that no cache helps. The first image counts from the start of the navigation. A frame
counts from the slider's event until the canvas is drawn, without the wait for the screen.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

import vaezoo
from tables import HERE, format_quartiles, hardware, put_tables, quartiles, table, versions
from vaezoo.core.atomic import write_file
from vaezoo.core.environment import environment
from vaezoo.core.json_io import json_bytes
from vaezoo.explore.page import PAGE, PAGE_FILES
from vaezoo.explore.server import address, make_server

FILE = HERE / "results" / "explore-cpu.json"
PACKAGES = ("vaezoo", "selenium")
COLOUR = "conv-vae, 64x64 colour"  # not trained: weights do not change the time
FRAMES = 50  # in a round
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
OBSERVE = """
new MutationObserver(() => {
  window.firstImage ??= document.getElementById("picture")?.dataset.frames && performance.now();
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
MOVE = """
const [count, done] = arguments;
const slider = document.querySelector(".sliders input");
const picture = document.getElementById("picture");
const times = [];
let start;
const move = () => {
  slider.value = Math.sin(times.length);
  start = performance.now();
  slider.dispatchEvent(new Event("input"));
};
const observer = new MutationObserver(() => {
  times.push(performance.now() - start);
  if (times.length < count) setTimeout(move);
  else { observer.disconnect(); done(times); }
});
observer.observe(picture, { attributes: true, attributeFilter: ["data-frames"] });
move();
"""


def exports(folder: Path) -> dict[str, Path]:
    """Exports the models, and returns the folders by name."""
    colour = vaezoo.from_arrays(np.random.default_rng(0).random((64, 3, 64, 64), np.float32))
    run = vaezoo.train("conv-vae", colour, config=vaezoo.TrainConfig(steps=1, batch_size=16), out=folder / "run")
    runs = {name: vaezoo.load(name) for name in ("conv-vae-mnist", "vae-gan-digits")} | {COLOUR: run}
    return {name: vaezoo.export_onnx(run, folder / f"export-{i}").path for i, (name, run) in enumerate(runs.items())}


def write_page(export: Path, out: Path, runtime: str) -> float:
    """Writes a page as a user does, and returns the seconds of the whole process."""
    command = [sys.executable, "-m", "vaezoo_cli", "explore", export, "--runtime", runtime, "--out", out]
    start = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def open_browser(profile: Path) -> webdriver.Chrome:
    """Starts Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium") or shutil.which("google-chrome"))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": OBSERVE})
    return driver


def measure_page(driver: webdriver.Chrome, page: Path) -> tuple[float, list[float], str]:
    """Loads a page. Returns the milliseconds of its first image and of each frame, and what ran the graphs."""
    with make_server(page, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        driver.get(address(server))
        WebDriverWait(driver, 60, 0.2).until(lambda d: d.execute_script("return document.body.dataset.complete"))
        first = driver.execute_script("return window.firstImage")
        frames = driver.execute_async_script(MOVE, FRAMES)
        label = driver.execute_script(
            "return document.getElementById('frame').textContent.split(', ').slice(1).join(', ')"
        )
        server.shutdown()
    return first, frames, label


def measure(rounds: int, runtime: str) -> list[dict[str, Any]]:
    """Returns a row for each model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = exports(folder)
        times: dict[str, dict[str, list[float]]] = {model: {"explore": [], "first": [], "frame": []} for model in found}
        driver, label = open_browser(folder / "profile"), ""
        try:
            for number in range(rounds + 1):  # the first round fills the disk cache and is not counted
                for i, (model, export) in enumerate(found.items()):
                    seconds = write_page(export, folder / f"page-{i}", runtime)
                    first, frames, label = measure_page(driver, folder / f"page-{i}")
                    if number:
                        for key, values in (("explore", [seconds]), ("first", [first / 1000]), ("frame", frames)):
                            times[model][key] += values
        finally:
            driver.quit()
    return [
        {"model": model, "runs_on": label, **{key: quartiles(values) for key, values in of_model.items()}}
        for model, of_model in times.items()
    ]


def lines(result: Mapping[str, Any]) -> list[str]:
    """Returns the table, with the machine and the versions above it."""
    rows = [
        [
            f"`{row['model']}`",
            format_quartiles(row["frame"], ".1f"),
            format_quartiles(row["first"], ".2f"),
            format_quartiles(row["explore"], ".2f"),
        ]
        for row in result["rows"]
    ]
    about = result["environment"]
    return [
        f"{hardware(about)}; {versions(about)}, {result['browser']}, {result['rows'][0]['runs_on']}. "
        f"{result['rounds']} rounds. The page has {result['page_bytes'] / 1000:.0f} KB without runtime and graphs.",
        "",
        *table(["model", "frame, ms", "first image, s", "`vaezoo explore`, s"], rows),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, writes the JSON file, and prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", default="web", metavar="FOLDER", help="a copy of onnxruntime-web")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, 5 by default")
    parser.add_argument("--tables", action="store_true", help="write the table from the existing results")
    args = parser.parse_args(arguments)
    if args.tables:
        result = json.loads(FILE.read_text("utf-8"))
    else:
        browser = subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=True).stdout.split()
        result = {
            "schema": 1,
            "benchmark": "explore",
            "rounds": args.rounds,
            "environment": environment(PACKAGES),
            "browser": " ".join(browser[:2]),
            "page_bytes": sum((PAGE / name).stat().st_size for name in PAGE_FILES),
            "rows": measure(args.rounds, args.runtime),
        }
        write_file(FILE, json_bytes(result))
    print("\n".join(lines(result)))
    put_tables("explore", "explore.py", lines(result))


if __name__ == "__main__":
    main()

"""A browser that shows pages of `vaezoo explore`, where Chromium and the packages of web/ are installed."""

import base64
import functools
import io
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from members import MEMBERS, member_data
from PIL import Image

from vaezoo import Run, TrainConfig, from_arrays, load, train
from vaezoo.explore.server import address, make_server

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
# Where `npm install` in web/ put its packages, or where another one did.
NODE_MODULES = Path(os.environ.get("VAEZOO_NODE_MODULES", WEB / "node_modules"))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # the page has to work offline
)
SECONDS = 60


def require_package(name):
    """Returns the folder of a package of npm, or skips the test."""
    if not (NODE_MODULES / name / "package.json").is_file():
        pytest.skip(f"{name} is not installed: run 'make browser'")
    return NODE_MODULES / name


def colour_run(folder) -> Run:
    x = np.repeat(np.repeat(np.random.default_rng(0).random((40, 8, 8, 3), np.float32), 8, 1), 8, 2)
    config = TrainConfig(steps=3, batch_size=8)
    return train("conv-vae", from_arrays(x), options={"channels": "8,16", "latent_dim": 6}, config=config, out=folder)


def member_run(name, folder) -> Run:
    member = MEMBERS[name]
    config = TrainConfig(steps=20, batch_size=20)
    return train(member.model, member_data(member.data), options=member.options, config=config, out=folder)


SMALL_CODES = {"codebook_size": 32, "channels": "16,16", "residual_channels": 8}


def make_run(name, digits, folder) -> Run:
    """Returns a model of a kind that the page shows in its own way."""
    trained = functools.partial(train, data=digits, config=TrainConfig(steps=40, batch_size=50), out=folder)
    makers: dict[str, Callable[[], Run]] = {
        "mlp": lambda: load("mlp-vae-mnist"),
        "latent2": lambda: trained("conv-vae", options={"channels": "8,16", "latent_dim": 2}),
        "vae-gan": lambda: load("vae-gan-digits"),
        "conditional": lambda: trained("cvae", options={"latent_dim": 8}),
        "codes": lambda: trained("vq-vae", options=SMALL_CODES),
        "colour": lambda: colour_run(folder),
        "text": lambda: member_run("sentence-vae", folder),
        "table": lambda: member_run("table", folder),
    }
    return makers[name]()


class Browser:
    """Chromium with one page of a folder."""

    def __init__(self, driver):
        self.driver, self.server = driver, None

    def open(self, folder, *, path="", width=1280, locale="en-US", before="", wait="complete"):
        """Serves a folder and loads its page, or that at `path`, until it is complete or tells an error.

        `before` is a script that runs first.
        """
        self.close()
        self.server = make_server(folder, 0)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setLocaleOverride", {"locale": locale})
        script = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": before})
        self.driver.get_log("browser")
        self.driver.get(address(self.server) + path)
        self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
        self.until(f"return document.body.dataset.{wait} || document.querySelector('[role=alert]')")

    def close(self):
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, *arguments):
        end = time.monotonic() + SECONDS
        while not (value := self.run(script, *arguments)):
            if time.monotonic() > end:
                raise AssertionError(f"{script} did not happen: {self.run('return document.body.innerText')[:500]}")
            time.sleep(0.02)
        return value

    def pixels(self, selector="#picture"):
        """The pixels of a canvas, `(H, W, 3)`."""
        code = (
            "const c = document.querySelector(arguments[0]); const d = c.getContext('2d').getImageData(0, 0, c.width,"
        )
        code += "c.height); return [c.height, c.width, btoa(String.fromCharCode(...d.data))]"
        height, width, data = self.run(code, selector)
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3].astype(int)

    def change(self, script, *arguments):
        """Runs a script that moves the latents, and returns the pixels of the new image."""
        self.move(script, *arguments)
        return self.pixels()

    def move(self, script, *arguments):
        """Runs a script that moves the latents, and waits until their data are shown."""
        before = self.run("return document.getElementById('picture').dataset.frames")
        self.run(script, *arguments)
        self.until("return document.getElementById('picture').dataset.frames !== arguments[0]", before)

    def code(self, language):
        """What the button copies that gives the code of the picture."""
        title = f"Copy {language}"
        self.run("[...document.querySelectorAll('button')].find((b) => b.textContent === arguments[0]).click()", title)
        return self.run("return document.querySelector('pre').textContent")

    def drop(self, data):
        """Drops a file on the page: bytes, or so many zeros."""
        code = "const given = arguments[0]; const data = typeof given === 'number' ? new Uint8Array(given) : "
        code += "Uint8Array.from(atob(given), (c) => c.charCodeAt(0)); const transfer = new DataTransfer(); "
        code += "transfer.items.add(new File([data], 'image.png')); document.getElementById('drop')"
        code += ".dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }))"
        self.run(code, data if isinstance(data, int) else base64.b64encode(data).decode())

    def errors(self):
        """What the page wrote to the console as errors."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def png(pixels):
    """Returns pixels as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

"""A browser without a window: Chromium, told what to do through its debugging port."""

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 60.0  # seconds that a busy machine may take


class Browser:
    """One page: `with Browser(folder) as browser: browser.open(url)`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.requests: list[str] = []  # addresses that were asked for
        self.complaints: list[str] = []  # what was written to the console, and exceptions

    def __enter__(self) -> Self:
        from websockets.sync.client import connect

        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [
                *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--remote-debugging-port=0", f"--user-data-dir={self._folder}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = self._port()
        address = f"ws://127.0.0.1:{port}{self._address(port)}"
        self._socket = connect(address, max_size=None).__enter__()
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.tell(f"{domain}.enable")
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.__exit__(None, None, None)
        self._process.terminate()
        self._process.wait(PATIENCE)

    def _port(self) -> int:
        file = self._folder / "DevToolsActivePort"
        give_up = time.monotonic() + PATIENCE
        while not (file.exists() and file.read_text().count("\n")):
            assert self._process.poll() is None, "the browser has ended"
            assert time.monotonic() < give_up, "the browser does not begin"
            time.sleep(0.05)
        return int(file.read_text().split()[0])

    def _address(self, port: int) -> str:
        from urllib.request import urlopen

        with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [each for each in json.load(answer) if each["type"] == "page"]
        address: str = pages[0]["webSocketDebuggerUrl"]
        return address[address.index("/devtools") :]

    def tell(self, method: str, **params: Any) -> Any:
        """Send a command, and return its result."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: Any) -> None:
        method, params = message["method"], message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(params))

    def open(self, url: str) -> None:
        """Open a page, and wait until it says that it is ready."""
        self.tell("Page.navigate", url="about:blank")
        self.tell("Page.navigate", url=url)
        self.wait_for("document.documentElement?.dataset.ready === 'true'")

    def ask(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.tell(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        give_up = time.monotonic() + PATIENCE
        while not self.ask(expression):
            assert time.monotonic() < give_up, expression
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other: `"ArrowRight"`, `"Shift+ArrowRight"`, `"d"`."""
        for word in keys:
            shift, _, key = word.rpartition("Shift+")
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            params: dict[str, Any] = {
                "key": key,
                "modifiers": 8 if shift or "Shift+" in word else 0,
            }
            if key in ("Enter", "Tab"):
                params["windowsVirtualKeyCode"] = {"Enter": 13, "Tab": 9}[key]
            down = {**params, "text": text} if text else params
            self.tell("Input.dispatchKeyEvent", type="keyDown", **down)
            self.tell("Input.dispatchKeyEvent", type="keyUp", **params)

    def write(self, text: str) -> None:
        self.tell("Input.insertText", text=text)

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def picture(self) -> bytes:
        """Return what is seen, as a PNG."""
        return base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"])

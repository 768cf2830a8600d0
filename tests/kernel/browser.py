"""A headless Chromium in a network namespace, driven by the Chrome DevTools Protocol over a pair of pipes.

Pipes, since they cross the border of a network namespace, which the TCP port of a WebDriver does not.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from portslice.demo.testbed import Testbed
from tests.kernel.waiting import until

_ANSWER_SECS = 60.0


class Page:
    """One page, and everything it complained of."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._received = b""
        self._ids = itertools.count(1)
        self._session: str | None = None
        self.complaints: list[str] = []
        """Exceptions, errors on the console, and violations of the Content-Security-Policy."""
        (target,) = (each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol.

        :raises RuntimeError: the browser refuses it, or has gone.
        """
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)
        until(lambda: self.run("document.readyState") == "complete", address)

    def reload(self) -> None:
        """Load the page again."""
        self.run("window.isOld = true")
        self.call("Page.reload")
        until(lambda: self.run("!window.isOld && document.readyState") == "complete", "the page again")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, or what its promise comes to.

        :raises RuntimeError: it throws.
        """
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def until(self, condition: str, what: str = "") -> Any:
        """Wait for a JavaScript expression to be true; its value."""
        return until(lambda: self.run(condition), what or condition)

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """Of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def prefer(self, scheme: str) -> None:
        """`dark` or `light`, as the system's choice."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _receive(self) -> Any:
        end = time.monotonic() + _ANSWER_SECS
        while b"\0" not in self._received:
            if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
                raise RuntimeError("The browser does not answer")
            if not (data := os.read(self._from, 1 << 16)):
                raise RuntimeError("The browser has gone")
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")


@contextmanager
def browser(bed: Testbed, namespace: Path) -> Iterator[Page]:
    """A started browser with an empty page, in a network namespace."""
    (their_in, to_browser), (from_browser, their_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="portslice-browser-") as profile:
        command = [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"),
            *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
            *("--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        # The protocol's pipes are the descriptors 3 and 4, which may be others of ours.
        theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (their_in, their_out)]
        redirected = ["bash", "-c", 'exec "${@:3}" 3<&"$1" 4>&"$2"', "bash", *map(str, theirs), *command]
        process = subprocess.Popen(
            bed.command(namespace, redirected),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=theirs,
            start_new_session=True,
        )
        for each in (their_in, their_out, *theirs):
            os.close(each)
        try:
            yield Page(to_browser, from_browser)
        finally:
            process.kill()
            process.wait()
            until(lambda: not _kill_group(process.pid), "the end of the browser's processes")
            os.close(to_browser)
            os.close(from_browser)


def _kill_group(group: int) -> bool:
    """Kill the processes of a group; whether there was one."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True

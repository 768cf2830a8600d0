"""An agent's side of the v1 executor API, as small as one can be: it tells an executor what to do, and keeps what it
hears.

It stands where a real agent does, at the other end of a socket, so that what an agent rarely does can be tried: go away
in the middle, keep acknowledgements back, say what is no event.
"""

import json
import queue
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kernel.waiting import until

PATH = "/slave(1)/api/v1/executor"
FRAMEWORK, EXECUTOR = "framework-0000", "executor"


class AgentPeer:
    """One agent with one executor."""

    def __init__(self, *capabilities: str) -> None:
        self._capabilities = [{"type": each} for each in capabilities]
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._events: queue.Queue[bytes | None] = queue.Queue()
        self.port = 0
        self.acknowledges = True
        self.subscriptions: list[dict[str, Any]] = []
        self.updates: dict[str, list[dict[str, Any]]] = {}

    def start(self) -> None:
        """Listen, at the port of before."""
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                peer._answer(self)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Go away, with all connections."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._events.put(None)
            self._server.server_close()
            self._server = None

    def send(self, kind: str, **body: Any) -> None:
        """Send an event."""
        self.send_raw(json.dumps({"type": kind, **body}).encode())

    def send_raw(self, record: bytes) -> None:
        """Send a record."""
        self._events.put(b"%d\n%s" % (len(record), record))

    def garble(self) -> None:
        """Send what is no record."""
        self._events.put(b"what\n")

    def launch(self, *tasks: dict[str, Any], alone: bool = False) -> None:
        """Launch a group, or one command task."""
        if alone:
            self.send("LAUNCH", launch={"task": tasks[0]})
        else:
            self.send("LAUNCH_GROUP", launch_group={"task_group": {"tasks": tasks}})

    def kill(self, task_id: str, **policy: Any) -> None:
        """Kill a task."""
        self.send("KILL", kill={"task_id": {"value": task_id}, **policy})

    def states(self, task_id: str) -> list[str]:
        """Of a task, as they came."""
        return [each["state"] for each in self.updates.get(task_id, [])]

    def status(self, task_id: str, state: str, **members: Any) -> dict[str, Any]:
        """The update of a task that brings this state, and these members, when it comes."""
        wanted = {"state": state, **members}
        return until(
            lambda: next((each for each in self.updates.get(task_id, []) if wanted.items() <= each.items()), None),
            f"{wanted} of {task_id} (there is {self.updates.get(task_id)})",
        )

    def acknowledge(self, status: dict[str, Any]) -> None:
        """Tell that an update has come."""
        self.send("ACKNOWLEDGED", acknowledged={name: status[name] for name in ("task_id", "uuid")})

    # Inside

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        call = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        assert handler.path == PATH
        assert (call["framework_id"]["value"], call["executor_id"]["value"]) == (FRAMEWORK, EXECUTOR)
        if call["type"] == "SUBSCRIBE":
            self._stream(handler, call["subscribe"])
            return
        if call["type"] == "UPDATE":
            self._updated(call["update"]["status"])
        handler.send_response(202)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _stream(self, handler: BaseHTTPRequestHandler, subscription: dict[str, Any]) -> None:
        events = self._events = queue.Queue()
        framework = {"user": "root", "name": "tests", "capabilities": self._capabilities}
        self.send("SUBSCRIBED", subscribed={"framework_info": framework})
        self.subscriptions.append(subscription)
        for update in subscription["unacknowledged_updates"]:
            self._updated(update["status"])
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while (record := events.get()) is not None:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(record), record))
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    def _updated(self, status: dict[str, Any]) -> None:
        known = self.updates.setdefault(status["task_id"]["value"], [])
        if all(each["uuid"] != status["uuid"] for each in known):
            known.append(status)
        if self.acknowledges:
            self.acknowledge(status)

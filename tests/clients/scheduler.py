"""What mesoshttp and avmesos, unchanged, understand of an agent, as one JSON object.

They are schedulers, which talk to masters: they post SUBSCRIBE and read the RecordIO that comes back. So an agent can
refuse them in Mesos' words, with and without credentials, and its stream of output is in the form that they read (of
avmesos, whose reader can be had by itself).

usage: scheduler.py mesoshttp|avmesos http://HOST:PORT PRINCIPAL SECRET CONTAINER-ID
"""

import ast
import importlib
import json
import logging
import sys
from typing import Any

import requests  # type: ignore[import-untyped]  # of the environment that this runs in

Credentials = tuple[str, str] | None


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def after(self, prefix: str) -> list[str]:
        return [each.removeprefix(prefix) for each in self.messages if each.startswith(prefix)]


def client(module: str, url: str, auth: Credentials) -> tuple[Any, Heard]:
    made = importlib.import_module(f"{module}.client").MesosClient([url], max_reconnect=1)
    made.requests_auth = auth
    heard = Heard()
    made.logger = logging.Logger(module)
    made.logger.addHandler(heard)
    return made, heard


def subscribe(module: str, url: str, auth: Credentials) -> dict[str, Any]:
    made, heard = client(module, url, auth)
    return {"registered": bool(made.register()), "errors": heard.after("Mesos:Subscribe:Error: ")}


def output(url: str, auth: Credentials, container_id: str) -> list[Any]:
    made, heard = client("avmesos", url, auth)
    call = {"type": "ATTACH_CONTAINER_OUTPUT", "attach_container_output": {"container_id": {"value": container_id}}}
    headers = {"Accept": "application/recordio", "Message-Accept": "application/json"}
    made.long_pool = requests.post(f"{url}/api/v1", json=call, headers=headers, auth=auth, stream=True, timeout=60)
    made._MesosClient__event_loop()
    return [ast.literal_eval(each) for each in heard.after("Mesos:Message:")]


def main() -> None:
    module, url, principal, secret, container_id = sys.argv[1:]
    auth = (principal, secret)
    found: dict[str, Any] = {"without": subscribe(module, url, None), "with": subscribe(module, url, auth)}
    if module == "avmesos":
        found["output"] = output(url, auth, container_id)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

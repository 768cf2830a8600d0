"""The program as such: settings in, an exit status out."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from portslice import __version__
from portslice.errors import PortsliceError
from portslice.executor.settings import Settings
from portslice.executor.supervisor import Supervisor


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Run, and end without waiting for threads that wait for the agent."""
    if list(arguments) == ["--version"]:
        print(f"portslice executor {__version__}")
        sys.exit(0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", stream=sys.stderr)
    try:
        executor = _run(Settings.read(environment), environment, "--no-switch_user" not in arguments)
        asyncio.new_event_loop().run_until_complete(executor)
        status = 0
    except PortsliceError as error:
        logging.error("%s", error)
        status = 1
    logging.shutdown()
    os._exit(status)


async def _run(settings: Settings, environment: Mapping[str, str], switch_user: bool) -> None:
    supervisor = Supervisor(settings, environment, switch_user=switch_user)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.shut_down)
    await supervisor.run()

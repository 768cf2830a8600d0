"""How much the agent logs, above what --logging_level says: glog's level of verbosity.

At 0, the rule, nothing more; at 1 and above also what is logged for those who look for a fault, such as every request.
"""

import asyncio
import logging

_LOGGER = logging.getLogger("portslice")


class Verbosity:
    """The level, for a while."""

    def __init__(self) -> None:
        self.level = 0
        self._end: asyncio.TimerHandle | None = None

    def set(self, level: int, secs: float) -> None:
        """This level for so long, then 0 again. A later call goes before."""
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(secs, self._set, 0)
        self._set(level)

    def _set(self, level: int) -> None:
        self.level = level
        _LOGGER.setLevel(logging.DEBUG if level else logging.NOTSET)
        _LOGGER.info("The level of verbosity is %s", level)

"""HTTP's Basic authentication (RFC 7617), with a brake on guessing.

Whoever gives wrong credentials may do so a few times, and then once in a while. What comes above that is answered 429
without a look at what it brings, so that neither many connections nor many at once are of use to who guesses. The
allowance is each source's own (portslice.http.sources): who guesses locks out nobody but himself. Right credentials
cost none of it.
"""

import math
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from aiohttp import BasicAuth, hdrs, web

from portslice.credentials import Credentials
from portslice.http.sources import Source, Sources

_Key = TypeVar("_Key")


class Allowance(Generic[_Key]):
    """So many failures at once, regained one by one.

    :param secs: in which one is regained.
    :param most: keys of which it is known. If there are more, those are forgotten that failed least.
    """

    def __init__(
        self, failures: int, secs: float, most: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bound = (failures - 1) * secs
        self._secs = secs
        self._most = most
        self._clock = clock
        self._whole: dict[_Key, float] = {}  # when all will be regained

    def __len__(self) -> int:
        return len(self._whole)

    def wait_secs(self, key: _Key) -> float:
        """Until it may try; 0: now."""
        return max(0.0, self._whole.get(key, 0.0) - self._clock() - self._bound)

    def failed(self, key: _Key) -> None:
        """It tried, and failed."""
        now = self._clock()
        self._whole[key] = max(now, self._whole.get(key, now)) + self._secs
        if len(self._whole) > self._most:
            self._whole = {each: whole for each, whole in self._whole.items() if whole > now}
        if len(self._whole) > self._most:
            del self._whole[min(self._whole, key=self._whole.__getitem__)]


class Brake:
    """The allowances of all that reach a listener."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.allowance: Allowance[Source] = Allowance(20, 5.0)

    def principal(self, request: web.Request, credentials: Credentials | None, realm: str) -> str:
        """Who sends it.

        :raises web.HTTPUnauthorized: nobody who is known.
        :raises web.HTTPTooManyRequests: somebody who guessed too often.
        """
        try:
            given = BasicAuth.decode(request.headers.get(hdrs.AUTHORIZATION, ""), encoding="utf-8")
        except ValueError:
            given = None
        if given is not None and request.transport is not None:
            source = self.sources.of(request.transport)
            if wait_secs := self.allowance.wait_secs(source):
                raise web.HTTPTooManyRequests(
                    text=f"Too many wrong credentials from {source}: try again later",
                    headers={hdrs.RETRY_AFTER: str(math.ceil(wait_secs))},
                )
            if credentials is not None and credentials.admit(given.login, given.password):
                return str(given.login)
            self.allowance.failed(source)
        challenge = {hdrs.WWW_AUTHENTICATE: f'Basic realm="{realm}"'}
        raise web.HTTPUnauthorized(text="401 Unauthorized.", headers=challenge)


BRAKE = web.AppKey("brake", Brake)

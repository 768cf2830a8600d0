"""Who may be a framework, or change something over HTTP: whoever has credentials, and without --credentials a process
of root, or of the master's user, on this host."""

from aiohttp import hdrs, web

from portslice.credentials import Credentials
from portslice.engines.master.callers import Callers
from portslice.http.basic import BRAKE


class Admission:
    """Lets requests in, or ends them with aiohttp's exception for their status.

    :param who: who wants in, in the plural.
    """

    def __init__(self, credentials: Credentials | None, who: str, realm: str) -> None:
        self._credentials = credentials
        self._who = who
        self._realm = realm
        self._callers = Callers()

    def admit(self, request: web.Request) -> str | None:
        """Its principal, where one is needed.

        :raises web.HTTPException: it may not.
        """
        if self._credentials is not None:
            return request.app[BRAKE].principal(request, self._credentials, self._realm)
        caller = self._callers.of(request)
        if caller is None or not caller.trusted:
            who = caller or "somebody who has gone"
            text = f"{self._who} are processes of root on this host, and this is {who}: see --credentials"
            raise web.HTTPForbidden(text=text)
        if request.headers.get(hdrs.ORIGIN) is not None:
            raise web.HTTPForbidden(text=f"{self._who} are no pages of a browser")
        return None

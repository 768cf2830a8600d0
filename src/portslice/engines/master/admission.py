"""Who may be a framework, or change something over HTTP: whoever has credentials, and without --credentials a process
of root, or of the master's user, on this host."""

from aiohttp import BasicAuth, hdrs, web

from portslice.credentials import Credentials
from portslice.engines.master.callers import Callers


class Admission:
    """Lets requests in, or ends them with aiohttp's exception for their status.

    :param who: who wants in, in the plural.
    """

    def __init__(self, credentials: Credentials | None, who: str, realm: str) -> None:
        self._credentials = credentials
        self._who = who
        self._realm = realm
        self._callers = Callers()

    def admit(self, request: web.Request) -> None:
        """:raises web.HTTPException: it may not."""
        if self._credentials is None:
            caller = self._callers.of(request)
            if caller is None or not caller.trusted:
                who = caller or "somebody who has gone"
                text = f"{self._who} are processes of root on this host, and this is {who}: see --credentials"
                raise web.HTTPForbidden(text=text)
            if request.headers.get(hdrs.ORIGIN) is not None:
                raise web.HTTPForbidden(text=f"{self._who} are no pages of a browser")
            return
        try:
            given = BasicAuth.decode(request.headers.get(hdrs.AUTHORIZATION, ""), encoding="utf-8")
        except ValueError:
            given = None
        if given is None or not self._credentials.admit(given.login, given.password):
            challenge = {hdrs.WWW_AUTHENTICATE: f'Basic realm="{self._realm}"'}
            raise web.HTTPUnauthorized(text="401 Unauthorized.", headers=challenge)

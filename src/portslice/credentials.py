"""Principals and their secrets: the value of Mesos' `--http_credentials`.

    {"credentials": [{"principal": "ops", "secret": "…"}]}

Only digests are kept, so that nothing that prints or dumps the value can show a secret.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any, Self

from portslice.errors import ParseError


@dataclass(frozen=True)
class Credentials:
    """Who may come in; pairs of a principal and the digest of it and its secret."""

    _known: tuple[tuple[str, bytes], ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the JSON.

        :raises ParseError: without any secret in the message.
        """
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise ParseError(f"Failed to parse JSON: {error}") from None
        listed = parsed.get("credentials") if isinstance(parsed, dict) else None
        if not isinstance(listed, list) or not listed:
            raise ParseError('Expecting {"credentials":[{"principal":"…","secret":"…"}]} with at least one of them')
        known = dict(_pair(each) for each in listed)
        if len(known) != len(listed):
            raise ParseError("A principal is there twice")
        return cls(tuple(known.items()))

    def admit(self, principal: str, secret: str) -> bool:
        """Whether this is the principal's secret; how long it takes tells nothing about either."""
        given = _digest(principal, secret)
        return sum(hmac.compare_digest(given, digest) for _, digest in self._known) > 0  # all of them are compared


def _pair(entry: Any) -> tuple[str, bytes]:
    principal, secret = (entry.get(name) if isinstance(entry, dict) else None for name in ("principal", "secret"))
    if not isinstance(principal, str) or not principal:
        raise ParseError("Each of the credentials needs a 'principal', a text")
    if ":" in principal:
        raise ParseError(f"The principal '{principal}' has a ':', which HTTP's Basic authentication cannot carry")
    if not isinstance(secret, str) or not secret:
        raise ParseError(f"The principal '{principal}' needs a 'secret', a text")
    return principal, _digest(principal, secret)


def _digest(principal: str, secret: str) -> bytes:
    # The principal has no colon, so no two pairs look alike. Anything a request can carry must be digestible.
    return hashlib.sha256(f"{principal}:{secret}".encode(errors="surrogatepass")).digest()

"""Principals and their secrets: the values of Mesos' `--http_credentials`, `--credentials` and `--credential`.

    {"credentials": [{"principal": "ops", "secret": "…"}]}      several
    {"principal": "ops", "secret": "…"}                         one
    ops …                                                       one a line, as Mesos had it before 1.11

A secret is shown to HTTP's Basic authentication as it is (`admit`), and proven to Mesos' own messages by CRAM-MD5
(RFC 2195): who knows it answers a challenge, which nobody asks twice, with the HMAC-MD5 of it.

Only digests and begun HMACs are kept, so that nothing that prints or dumps the value can show a secret.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from portslice.errors import ParseError


@dataclass(frozen=True)
class Credential:
    """One principal with its secret."""

    principal: str
    _digest: bytes = field(repr=False)
    _keyed: hmac.HMAC = field(repr=False, compare=False)

    @classmethod
    def of(cls, principal: str, secret: str) -> Self:
        """From both in clear."""
        keyed = hmac.new(secret.encode(errors="surrogatepass"), digestmod="md5")
        return cls(principal, _digest(principal, secret), keyed)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one, JSON or two words.

        :raises ParseError: without any secret in the message.
        """
        if text.lstrip().startswith(("{", "[")):
            return cls._entry(_json(text))
        words = [line.split() for line in text.splitlines() if line.strip()]
        if len(words) != 1:
            raise ParseError('Expecting only one credential, {"principal":"…","secret":"…"}')
        return cls._line(words[0], 1)

    @classmethod
    def _entry(cls, entry: Any) -> Self:
        principal, secret = (entry.get(name) if isinstance(entry, dict) else None for name in ("principal", "secret"))
        if not isinstance(principal, str) or not principal:
            raise ParseError("Each of the credentials needs a 'principal', a text")
        if not isinstance(secret, str) or not secret:
            raise ParseError(f"The principal '{principal}' needs a 'secret', a text")
        return cls.of(principal, secret)

    @classmethod
    def _line(cls, words: Sequence[str], number: int) -> Self:
        if len(words) != 2:
            raise ParseError(f"Invalid credential format at line {number}: expecting a principal, a blank and a secret")
        return cls.of(*words)

    def is_of(self, digest: bytes) -> bool:
        return hmac.compare_digest(digest, self._digest)

    def respond(self, challenge: bytes) -> bytes:
        """CRAM-MD5's answer: the principal, a blank, and the HMAC in hexadecimal."""
        keyed = self._keyed.copy()
        keyed.update(challenge)
        return f"{self.principal} {keyed.hexdigest()}".encode(errors="surrogatepass")


@dataclass(frozen=True)
class Credentials:
    """Who may come in."""

    _known: tuple[Credential, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the JSON.

        :raises ParseError: without any secret in the message.
        """
        parsed = _json(text)
        listed = parsed.get("credentials") if isinstance(parsed, dict) else None
        if not isinstance(listed, list) or not listed:
            raise ParseError('Expecting {"credentials":[{"principal":"…","secret":"…"}]} with at least one of them')
        return cls._of([Credential._entry(each) for each in listed])

    @classmethod
    def parse_any(cls, text: str) -> Self:
        """Read the JSON, or lines of two words.

        :raises ParseError: without any secret in the message.
        """
        if not text.strip() or text.lstrip().startswith(("{", "[")):
            return cls.parse(text)
        lines = enumerate((line.split() for line in text.splitlines()), 1)
        return cls._of([Credential._line(words, number) for number, words in lines if words])

    @classmethod
    def _of(cls, credentials: list[Credential]) -> Self:
        for each in credentials:
            if ":" in each.principal:
                raise ParseError(
                    f"The principal '{each.principal}' has a ':', which HTTP's Basic authentication cannot carry"
                )
        if len({each.principal for each in credentials}) != len(credentials):
            raise ParseError("A principal is there twice")
        return cls(tuple(credentials))

    def admit(self, principal: str, secret: str) -> bool:
        """Whether this is the principal's secret; how long it takes tells nothing about either."""
        given = _digest(principal, secret)
        return sum(each.is_of(given) for each in self._known) > 0  # all of them are compared

    def prove(self, challenge: bytes, response: bytes) -> str | None:
        """Whose answer to the challenge this is; None: nobody's. How long it takes tells nothing."""
        right = [hmac.compare_digest(each.respond(challenge), response) for each in self._known]
        return next((each.principal for each, is_it in zip(self._known, right, strict=True) if is_it), None)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"Failed to parse JSON: {error}") from None


def _digest(principal: str, secret: str) -> bytes:
    # The principal has no colon, so no two pairs look alike. Anything a request can carry must be digestible.
    return hashlib.sha256(f"{principal}:{secret}".encode(errors="surrogatepass")).digest()

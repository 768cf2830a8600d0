"""Whose turn it is: dominant resource fairness (Ghodsi et al., NSDI 2011), over roles and then over their frameworks.

A share is the largest fraction, over all scalar resources, that somebody has of all there is; what is offered counts as
had. Who has the smallest share comes first; among equals the one who was offered something longest ago, which is how
those who decline take turns.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from portslice.engines.master.bundle import Bundle


@dataclass(frozen=True)
class Claim:
    """A framework in one of its roles, and what it has there.

    :param served: when it was last offered anything; any number that grows.
    """

    framework: str
    role: str
    has: Bundle
    served: float = 0.0


def share(has: Bundle, total: Bundle) -> float:
    """The dominant share, 0 to 1."""
    return max((amount / all_ for name, amount in has.scalars() if (all_ := total.scalar(name))), default=0.0)


def order(claims: Iterable[Claim], total: Bundle) -> list[Claim]:
    """The claims, first come first."""
    claims = list(claims)
    roles: dict[str, list[Claim]] = {}
    for claim in claims:
        roles.setdefault(claim.role, []).append(claim)
    standing = {
        role: (share(sum((each.has for each in members), Bundle()), total), min(each.served for each in members))
        for role, members in roles.items()
    }
    return sorted(
        claims,
        key=lambda c: (*standing[c.role], c.role, share(c.has, total), c.served, c.framework),
    )

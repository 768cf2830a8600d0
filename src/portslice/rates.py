"""Limits as values, and how a container's limit follows from the agent's flags (Mesos HEAD, `port_mapping.cpp`).

A limit is fixed, or so much for each whole CPU of the container; it is raised to the minimum, then lowered to the
maximum. Two things are as Mesos' documentation has them and its code has not: a limit of 0 is no limit, and a maximum
of 0 is none. What somebody asks for one container goes before the flags, but never beyond the maximum.

The ceiling is no second rate: HTB lends only what a parent class has left, and there is none. It says how fast a burst
may go, and the burst how much that may be; `rate` holds in the long run.
"""

import math
from dataclasses import dataclass

DEFAULT_MINIMUM = 125_000


@dataclass(frozen=True)
class Rate:
    """A limit in bytes per second.

    :param ceil: bytes per second of a burst; the rate itself if None.
    :param burst: bytes of a burst; derived from the rate if None.
    """

    rate: int
    ceil: int | None = None
    burst: int | None = None


@dataclass(frozen=True)
class RatePolicy:
    """What the operator chose for one direction, in bytes per second (`burst` in bytes); None: not given.

    :param fixed: of every container; excludes `per_cpu`.
    :param ceil: heeded where it is above the rate.
    :param burst: heeded where the ceiling is.
    """

    fixed: int | None = None
    per_cpu: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    ceil: int | None = None
    burst: int | None = None

    @property
    def limits_any(self) -> bool:
        """Whether containers have a limit without having asked for one."""
        return bool(self.fixed or self.per_cpu)

    def rate(self, cpus: float | None, asked: int | None = None) -> Rate | None:
        """The limit of a container with so many CPUs; None: no limit.

        :param asked: for this container alone, in bytes per second; 0: no limit; None: the flags decide.
        """
        if asked is not None:
            limit = min(filter(None, (asked, self.maximum)), default=None)
            return None if limit is None else Rate(limit)
        if self.fixed:
            rate = self.fixed
        elif self.per_cpu:
            rate = self.per_cpu * math.floor(cpus or 0)
        else:
            return None
        rate = max(rate, DEFAULT_MINIMUM if self.minimum is None else self.minimum)
        if self.maximum:
            rate = min(rate, self.maximum)
        if not rate:
            # Less than one CPU, and a minimum of 0: HTB has no rate of 0, and no limit is not what was meant.
            rate = min(filter(None, (self.per_cpu, self.maximum)))
        ceil = self.ceil if self.ceil and self.ceil > rate else None
        return Rate(rate, ceil, (self.burst or None) if ceil else None)

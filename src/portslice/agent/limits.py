"""From flags to the limits of both directions: Mesos' checks 21 to 26, in its order and words.

A link whose speed nobody knows is no error: its driver says -1, or nothing, on most virtual machines, which Mesos took
for a speed, or refused (MESOS-7074). The limits are then not compared with it.
"""

import logging
import math
from typing import NamedTuple

from portslice.agent.flags import AgentFlags
from portslice.errors import ParseError, PortsliceError
from portslice.rates import RatePolicy
from portslice.resources import Resources
from portslice.units import Bytes

log = logging.getLogger(__name__)

_AUTO = "auto"


class LimitError(PortsliceError):
    """The limits contradict each other, or the link."""


class SpeedError(LimitError):
    """They need to know the link's speed, or another one."""


class Limits(NamedTuple):
    """What the flags say of every container."""

    egress: RatePolicy
    ingress: RatePolicy


class _Given(NamedTuple):
    """The flags of one direction."""

    direction: str
    fixed: Bytes | None
    per_cpu: str | None
    minimum: Bytes | None
    maximum: Bytes | None
    ceil: Bytes | None
    burst: Bytes | None


def limits(flags: AgentFlags, nic: str, speed: int | None) -> Limits:
    """The limits that the flags mean.

    :param speed: bytes per second of `nic`, as its driver says; --network_link_speed overrides it.
    :raises LimitError: with Mesos' words.
    """
    both = _given(flags)
    speed = flags.network_link_speed or speed
    for given in both:
        if given.fixed is not None and given.per_cpu is not None:
            names = f"{given.direction}_rate_limit_per_container and {given.direction}_rate_per_cpu"
            raise LimitError(f"Cannot specify both {names}{'.' if given.direction == 'egress' else ''}")
    for given in both:
        if given.minimum and given.maximum and given.minimum > given.maximum:
            word = given.direction
            raise LimitError(f"Minimum {word} rate limit cannot be greater than maximum {word} rate.")
    policies = [
        RatePolicy(
            fixed=given.fixed,
            per_cpu=_per_cpu(given, flags, nic, speed),
            minimum=given.minimum,
            maximum=given.maximum,
            ceil=given.ceil,
            burst=given.burst,
        )
        for given in both
    ]
    for given in both:
        _check_speed(given, nic, speed)
    return Limits(*policies)


def uses_speed(flags: AgentFlags) -> bool:
    """Whether a limit is compared with the speed of the link, or made from it."""
    return any(
        given.fixed or given.minimum or given.maximum or given.per_cpu == _AUTO for given in _given(flags)
    )


def _given(flags: AgentFlags) -> tuple[_Given, _Given]:
    return (
        _Given(
            "egress",
            flags.egress_rate_limit_per_container,
            flags.egress_rate_per_cpu,
            flags.minimum_egress_rate_limit,
            flags.maximum_egress_rate_limit,
            flags.egress_ceil_limit,
            flags.egress_burst,
        ),
        _Given(
            "ingress",
            flags.ingress_rate_limit_per_container,
            flags.ingress_rate_per_cpu,
            flags.minimum_ingress_rate_limit,
            flags.maximum_ingress_rate_limit,
            flags.ingress_ceil_limit,
            flags.ingress_burst,
        ),
    )


def _per_cpu(given: _Given, flags: AgentFlags, nic: str, speed: int | None) -> int | None:
    if given.per_cpu is None:
        return None
    if given.per_cpu != _AUTO:
        try:
            return Bytes.parse(given.per_cpu)
        except ParseError as error:
            raise LimitError(f"Bad option for '{given.direction}_rate_per_cpu' flag: {error}") from None
    cpus = math.floor(Resources.parse(flags.resources, flags.default_role).scalar("cpus") or 0)
    if cpus < 1:
        raise LimitError(f"CPUs resource has to be specified to determine per CPU {given.direction} rate limit")
    if speed is None:
        raise SpeedError(
            f"Failed to determine per CPU {given.direction} rate limit: Failed to determine link speed of {nic}: "
            "Not supported"
        )
    return speed // cpus


def _check_speed(given: _Given, nic: str, speed: int | None) -> None:
    for what, limit in (("", given.fixed), ("minimum ", given.minimum)):
        what += f"{given.direction} traffic limit"
        if limit and speed is None:
            log.warning("The link speed of %s is unknown: the %s is not checked against it", nic, what)
        elif limit and speed is not None and limit > speed:
            raise SpeedError(
                f"The given {what} for containers {int(limit)} Bytes/s is greater than the host link speed "
                f"{int(speed)} Bytes/s"
            )
    if given.maximum and speed is not None and given.maximum > speed:
        word = given.direction
        log.warning("The given maximum %s rate limit is greater than the link speed and will not be achieved.", word)

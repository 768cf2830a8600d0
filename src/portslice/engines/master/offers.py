"""Offers: what is free goes to whose turn it is, until it is taken, declined or withdrawn.

All that is free of an agent, and open to a role, is one offer. There is a round at fixed intervals and after each event
that may free something. What a framework declines, or leaves of an offer, it is not offered again for a while, unless
there is more of it.

An agent that has as many containers as it may have is not offered. Mesos counts only executors of frameworks there;
here a command task has a block of ephemeral ports, too, and is counted. An agent of ours tells how many blocks it has.
"""

import asyncio
import itertools
import logging
import time

from portslice.engines.master import fairness
from portslice.engines.master.bundle import Bundle
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.fairness import Claim
from portslice.engines.master.model import Agent, Framework, Offer
from portslice.engines.mesos.schema.mesos_pb2 import FrameworkInfo
from portslice.engines.mesos.v1 import to_json

log = logging.getLogger(__name__)

REFUSE_SECS = 5.0
_REFUSE_MAX_SECS = 365 * 86400.0
_MIN_CPUS, _MIN_MEM = 0.01, 32  # Mesos' --min_allocatable_resources
_COMPLAINT_SECS = 5.0


class Offers:
    """All offers of a master."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._numbers = itertools.count()
        self._turns = itertools.count(1)
        self._round: asyncio.Handle | None = None
        self._complaints: dict[str, float] = {}

    def soon(self) -> None:
        """Have a round when what is going on is over."""
        if self._round is None:
            self._round = asyncio.get_running_loop().call_soon(self.make)

    def make(self) -> None:
        """A round."""
        if self._round is not None:
            self._round.cancel()
            self._round = None
        self._cluster.counted["allocation_runs"] += 1
        total = sum((agent.total for agent in self._cluster.agents.values()), Bundle())
        made: dict[str, list[Offer]] = {}
        for agent in self._cluster.agents.values():
            if not agent.connected or self._is_full(agent):
                continue
            free = agent.total - agent.used() - agent.offered()
            for claim in fairness.order(self._claims(), total):
                part = free.open_to(claim.role)
                framework = self._cluster.frameworks[claim.framework]
                if _is_worth(part) and not _is_refused(framework, agent, claim.role, part):
                    made.setdefault(framework.id, []).append(self._offer(agent, framework, claim.role, part))
                    free -= part
        for framework_id, offers in made.items():
            framework = self._cluster.frameworks[framework_id]
            framework.tell("OFFERS", offers={"offers": [as_json(each) for each in offers]})

    def take(self, offer: Offer) -> None:
        """The framework has answered it."""
        offer.agent.offers.pop(offer.id, None)
        offer.framework.offers.pop(offer.id, None)

    def refuse(self, framework: Framework, agent: Agent, role: str, left: Bundle, seconds: float) -> None:
        """What a framework does not want for a while."""
        if not 0 <= seconds <= _REFUSE_MAX_SECS:
            seconds = REFUSE_SECS
        if left.amounts and seconds:
            framework.filters[agent.id, role] = left, time.monotonic() + seconds

    def rescind_of_agent(self, agent: Agent) -> None:
        """There is nothing to be had of it now."""
        for offer in list(agent.offers.values()):
            offer.framework.tell("RESCIND", rescind={"offer_id": {"value": offer.id}})
            self.take(offer)

    def drop_of_framework(self, framework: Framework) -> None:
        """It is gone, or subscribed anew and knows of none."""
        for offer in list(framework.offers.values()):
            self.take(offer)
        framework.filters.clear()

    def _offer(self, agent: Agent, framework: Framework, role: str, bundle: Bundle) -> Offer:
        offer = Offer(f"{self._cluster.id}-O{next(self._numbers)}", agent, framework, role, bundle)
        agent.offers[offer.id] = framework.offers[offer.id] = offer
        framework.served[role] = next(self._turns)
        return offer

    def _claims(self) -> list[Claim]:
        return [
            Claim(framework.id, role, _has(framework, role), framework.served.get(role, 0))
            for framework in self._cluster.frameworks.values()
            if framework.connected
            for role in framework.roles
            if role not in framework.suppressed
        ]

    def _is_full(self, agent: Agent) -> bool:
        limit = self._cluster.limit(agent)
        if limit is None or agent.containers() < limit:
            return False
        if time.monotonic() >= self._complaints.get(agent.id, 0):
            self._complaints[agent.id] = time.monotonic() + _COMPLAINT_SECS
            log.warning(
                "Not offering agent %s at %s (%s): it has reached the maximum number of executors, %s",
                agent.id,
                agent.pid,
                agent.info.hostname,
                limit,
            )
        return True


def _has(framework: Framework, role: str) -> Bundle:
    offers = (each.bundle for each in framework.offers.values() if each.role == role)
    return sum(offers, framework.used_as(role))


def _is_worth(part: Bundle) -> bool:
    return part.scalar("cpus") >= _MIN_CPUS or part.scalar("mem") >= _MIN_MEM


def _is_refused(framework: Framework, agent: Agent, role: str, part: Bundle) -> bool:
    refused, until = framework.filters.get((agent.id, role), (Bundle(), 0.0))
    return time.monotonic() < until and part <= refused


def as_json(offer: Offer) -> dict[str, object]:
    """As the v1 APIs show it."""
    agent = offer.agent
    knows_roles = offer.framework.has(FrameworkInfo.Capability.MULTI_ROLE)
    role = offer.role if knows_roles else None
    executors = [{"value": each} for owner, each in agent.executors if owner == offer.framework.id]
    address = {"hostname": agent.info.hostname, "ip": agent.pid.ip, "port": agent.pid.port}
    return {
        "id": {"value": offer.id},
        "framework_id": {"value": offer.framework.id},
        "agent_id": {"value": agent.id},
        "hostname": agent.info.hostname,
        "url": {"scheme": "http", "address": address, "path": f"/{agent.pid.name}"},
        "resources": [to_json(each) for each in offer.bundle.messages(role)],
        **({"attributes": [to_json(each) for each in agent.info.attributes]} if agent.info.attributes else {}),
        **({"executor_ids": executors} if executors else {}),
        **({"allocation_info": {"role": role}} if role is not None else {}),
    }

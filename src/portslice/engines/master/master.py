"""The master: what agents and frameworks want of each other, one concern a module.

    agents.py (libprocess) ──┬─▶ membership.py     agents' life
                             ├─▶ subscriptions.py  frameworks' life        ◀─┬── scheduler.py (v1 scheduler API)
                             ├─▶ launching.py      offers are accepted     ◀─┤
                             ├─▶ tasks.py          what becomes of tasks   ◀─┤
                             ├─▶ reconciliation.py frameworks ask for that ◀─┤
                             └─▶ executors.py      what hosts the tasks    ◀─┘
                                     │
                                     ├─▶ offers.py   what is free, for whose turn it is
                                     └─▶ cluster.py  what is known  ◀── views.py, metrics.py
"""

import asyncio

from portslice.engines.master.cluster import RECOVERED_SECS, Cluster
from portslice.engines.master.executors import Executors
from portslice.engines.master.launching import Launching
from portslice.engines.master.membership import Membership
from portslice.engines.master.offers import Offers
from portslice.engines.master.reconciliation import Reconciliation
from portslice.engines.master.subscriptions import Subscriptions
from portslice.engines.master.tasks import Tasks


class Master:
    """All of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.offers = Offers(cluster)
        self.tasks = Tasks(cluster, self.offers)
        self.reconciliation = Reconciliation(cluster, self.tasks)
        self.executors = Executors(cluster, self.offers)
        self.launching = Launching(cluster, self.offers, self.tasks, self.executors)
        self.subscriptions = Subscriptions(cluster, self.offers, self.tasks, self.executors)
        self.membership = Membership(
            cluster, self.offers, self.tasks, self.executors, self.subscriptions
        )

    async def run(self) -> None:
        """Make offers, for ever."""
        self.subscriptions.recover()
        asyncio.get_running_loop().call_later(RECOVERED_SECS, self.membership.give_up_recovered)
        while True:
            self.offers.make()
            await asyncio.sleep(self.cluster.flags.allocation_interval.seconds)

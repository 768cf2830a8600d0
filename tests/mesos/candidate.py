"""Keeps an ephemeral sequential node in ZooKeeper, as a master does, until it is killed or its session is over.

usage: candidate.py HOSTS PATH SESSION_SECS DATA [USER:PASSWORD]
"""

import os
import signal
import sys

from kazoo.client import KazooClient, KazooState
from kazoo.security import make_digest_acl

hosts, path, session_secs, data, *credentials = sys.argv[1:]
client = KazooClient(
    hosts,
    timeout=float(session_secs),
    connection_retry={"max_tries": -1, "delay": 0.1, "max_delay": 1},
    auth_data=[("digest", credential) for credential in credentials],
    default_acl=[make_digest_acl(*credential.split(":"), all=True) for credential in credentials] or None,
)
client.start(timeout=60)
client.add_listener(lambda state: os._exit(1) if state == KazooState.LOST else None)
client.ensure_path(f"{path}/log_replicas")  # there is one beside the masters'
print(client.create(f"{path}/json.info_", data.encode(), ephemeral=True, sequence=True), flush=True)
signal.pause()

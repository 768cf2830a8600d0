"""Keeps an ephemeral sequential node in ZooKeeper, as a master does, until it is killed.

usage: candidate.py HOSTS PATH USER:PASSWORD SESSION_SECS DATA
"""

import signal
import sys

from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

hosts, path, credential, session_secs, data = sys.argv[1:]
own = [make_digest_acl(*credential.split(":"), all=True)]
client = KazooClient(hosts, timeout=float(session_secs), auth_data=[("digest", credential)], default_acl=own)
client.start(timeout=60)
client.ensure_path(f"{path}/log_replicas")  # there is one beside the masters'
print(client.create(f"{path}/json.info_", data.encode(), ephemeral=True, sequence=True), flush=True)
signal.pause()

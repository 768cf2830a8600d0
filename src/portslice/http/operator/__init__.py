"""The agent's operator API: POST /api/v1, calls and answers as JSON.

    {"type": "LAUNCH_CONTAINER", "launch_container": {"container_id": {"value": "web"}, …}}

    endpoint.py     each call to what answers it
    calls.py        the calls and their arguments
    messages.py     from JSON to a call, as Mesos' conversion to protobuf takes it
    protocol.py     what HTTP is allowed to look like
    reading.py      the calls that only read
    containers.py   launch, wait, kill, remove
    streams.py      a container's output, as RecordIO
    fields.py       the order of members, where clients print what they get

messages.py and protocol.py are the master's, too. What each call says and does: docs/operator-api.md.
"""

from portslice.http.operator.endpoint import Operator

__all__ = ["Operator"]

"""The agent's operator API: POST /api/v1, calls and answers as JSON.

    {"type": "LAUNCH_CONTAINER", "launch_container": {"container_id": {"value": "web"}, …}}

    endpoint.py     what HTTP is allowed to look like; each call to what answers it
    messages.py     from JSON to a call, as Mesos' conversion to protobuf takes it
    reading.py      the calls that only read
    containers.py   launch, wait, kill, remove
    streams.py      a container's output, as RecordIO
    fields.py       the order of members, where clients print what they get

What each call says and does: docs/operator-api.md.
"""

from portslice.http.operator.endpoint import Operator

__all__ = ["Operator"]

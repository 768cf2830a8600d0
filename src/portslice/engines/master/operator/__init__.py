"""The master's operator API: POST /api/v1, calls and answers as JSON.

    endpoint.py   each call to what answers it
    calls.py      the calls and their arguments
    answers.py    what the reading calls say, in the shapes of the v1 API
    watching.py   SUBSCRIBE: what happens in the cluster, as it happens

From HTTP to a call it is as at the agent (portslice.http.operator).
"""

from portslice.engines.master.operator.endpoint import Operator

__all__ = ["Operator"]

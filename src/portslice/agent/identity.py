"""Who the agent is, to clients that tell agents apart: an id that its work directory keeps, for good."""

import os
import re
import uuid
from pathlib import Path

from portslice.errors import PortsliceError

_FILE = "agent_id"


def of(work_dir: Path) -> str:
    """The id, `<uuid>-S0` as a master would have given it; made on the first call.

    :raises PortsliceError: the file cannot be written, or holds something else.
    """
    path = work_dir / _FILE
    try:
        if not path.exists():
            draft = path.with_suffix(".new")
            draft.write_text(f"{uuid.uuid4()}-S0\n")
            os.replace(draft, path)
        found = path.read_text().strip()
    except OSError as error:
        raise PortsliceError(f"The agent's id cannot be kept in '{path}': {error.strerror}") from error
    if not re.fullmatch(r"[0-9a-f-]{36}-S\d+", found):
        raise PortsliceError(f"'{path}' holds no agent id: delete it, and the agent gets a new one")
    return found

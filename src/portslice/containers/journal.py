"""The journal: one small file a container, written atomically before the kernel is touched.

It holds what the kernel cannot tell after the agent's death: who a container is and what was promised to it. It lies
below the runtime directory, which does not outlive the machine's boot; nor do the things it speaks of. So it need not
reach the disk (fsync): the rename is all that the next agent needs to find a record whole.
"""

import json
import logging
from pathlib import Path

from portslice.containers.container import Container

log = logging.getLogger(__name__)


class Journal:
    """The containers on record, in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, container: Container) -> None:
        """Record a container as it is to be."""
        temporary = self._directory / f"{container.id}.tmp"
        temporary.write_text(json.dumps(container.to_json()))
        temporary.rename(self._path(container.id))

    def forget(self, container_id: str) -> None:
        """Drop a record."""
        self._path(container_id).unlink(missing_ok=True)

    def load(self) -> list[Container]:
        """All containers on record, the oldest first. A record that cannot be read is left alone and said."""
        containers = []
        for path in self._directory.glob("*.json"):
            try:
                containers.append(Container.from_json(json.loads(path.read_text())))
            except (ValueError, KeyError, TypeError) as error:
                log.error("The record '%s' cannot be read and is left as it is: %s", path, error)
        return sorted(containers, key=lambda container: container.created)

    def _path(self, container_id: str) -> Path:
        return self._directory / f"{container_id}.json"

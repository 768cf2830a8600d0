"""What a master must know again after a restart: its id, and those that it gave.

All else is soft: agents and frameworks tell of it when they come back. One small JSON file, written whole beside the
old one at each change.
"""

import json
import logging
import uuid
from pathlib import Path
from typing import Any

from portslice.errors import PortsliceError

log = logging.getLogger(__name__)

_REMEMBERED = 1000


class Registry:
    """The file `registry.json` in a directory.

    :raises PortsliceError: it cannot be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "registry.json"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            known = json.loads(self._path.read_text()) if self._path.exists() else {}
            self.id: str = known.get("id") or str(uuid.uuid4())
            self._next: dict[str, int] = known.get("next") or {"agent": 0, "framework": 0}
            self.agents: dict[str, dict[str, Any]] = known.get("agents") or {}
            self.frameworks: dict[str, dict[str, Any]] = known.get("frameworks") or {}
            self._removed: list[str] = known.get("removed") or []
            self._write()
        except (OSError, ValueError, AttributeError) as error:
            raise PortsliceError(f"The registry '{self._path}' cannot be used: {error}: see --work_dir") from error

    def new_agent_id(self) -> str:
        return f"{self.id}-S{self._number('agent')}"

    def new_framework_id(self) -> str:
        return f"{self.id}-{self._number('framework'):04}"

    def put_agent(self, agent_id: str, info: dict[str, Any]) -> None:
        """Expect this agent back after a restart."""
        if self.agents.get(agent_id) != info:
            self.agents[agent_id] = info
            self._save()

    def remove_agent(self, agent_id: str) -> None:
        if self.agents.pop(agent_id, None) is not None:
            self._save()

    def put_framework(self, framework_id: str, info: dict[str, Any]) -> None:
        """Expect this framework back; info is its FrameworkInfo as JSON."""
        if self.frameworks.get(framework_id) != info:
            self.frameworks[framework_id] = info
            self._save()

    def remove_framework(self, framework_id: str) -> None:
        """It has ended for good; its id is not taken again."""
        self.frameworks.pop(framework_id, None)
        self._removed = [*self._removed, framework_id][-_REMEMBERED:]
        self._save()

    def is_removed(self, framework_id: str) -> bool:
        return framework_id in self._removed

    def _number(self, kind: str) -> int:
        number = self._next[kind]
        self._next[kind] += 1
        self._save()
        return number

    def _save(self) -> None:
        try:
            self._write()
        except OSError as error:
            log.error("The registry '%s' cannot be written: %s", self._path, error.strerror)

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        content = {
            "id": self.id,
            "next": self._next,
            "agents": self.agents,
            "frameworks": self.frameworks,
            "removed": self._removed,
        }
        draft.write_text(json.dumps(content, indent=1))
        draft.rename(self._path)

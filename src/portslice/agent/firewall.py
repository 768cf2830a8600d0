"""--firewall_rules: which endpoints the TCP port does not serve."""

from typing import Any

from portslice.errors import PortsliceError

_FORM = (
    "Failed to load the rules of --firewall_rules: expecting "
    '{"disabled_endpoints": {"paths": ["/path", …]}}, and every path to begin with \'/\''
)


def disabled_endpoints(rules: dict[str, Any] | None) -> tuple[str, ...]:
    """Their paths.

    :raises PortsliceError: the rules have another form, or say something that would not be heeded.
    """
    paths = _only(_only(rules or {}, "disabled_endpoints", {}), "paths", [])
    if not isinstance(paths, list) or not all(isinstance(path, str) and path.startswith("/") for path in paths):
        raise PortsliceError(_FORM)
    return tuple(paths)


def _only(rules: Any, name: str, default: Any) -> Any:
    """The one member that they have."""
    if not isinstance(rules, dict) or rules.keys() - {name}:
        raise PortsliceError(_FORM)
    return rules.get(name, default)

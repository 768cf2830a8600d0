"""The errors of Portslice, and nothing else.

Every message is written for an operator: it names the thing that is wrong and is shown as it is. Where Mesos has a
text for the situation, the message is that text. Errors that only a mistake in this program can cause are ordinary
Python errors and have no place here.

    PortsliceError
    ├── ParseError       a text does not denote a value (units, ports, resources, flag values)
    ├── FlagError        a flag is unknown, missing, given twice, or has a bad value
    ├── NoPortsError     no free ephemeral block or not enough free ports are left
    ├── NetworkError     the kernel's network refuses, or lacks, what we need
    ├── ContainerError   a container cannot be launched, updated or destroyed
    ├── NotFoundError    the named thing does not exist
    ├── ConflictError    the thing exists already, or belongs to somebody else
    └── AccessError      the caller may not do this
"""


class PortsliceError(Exception):
    """The root: a message that an operator can act on."""


class ParseError(PortsliceError):
    """A text does not denote a value."""


class FlagError(PortsliceError):
    """A flag is unknown, missing, given twice, or has a bad value."""


class NoPortsError(PortsliceError):
    """No free ephemeral block, or not enough free ports, are left."""


class NetworkError(PortsliceError):
    """The kernel's network refuses, or lacks, what we need."""


class ContainerError(PortsliceError):
    """A container cannot be launched, updated or destroyed."""


class NotFoundError(PortsliceError):
    """The named thing does not exist."""


class ConflictError(PortsliceError):
    """The thing exists already, or belongs to somebody else."""


class AccessError(PortsliceError):
    """The caller may not do this."""

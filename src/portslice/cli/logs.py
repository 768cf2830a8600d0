"""glog's line form, so that what reads Mesos' logs reads these."""

import logging
from collections.abc import Sequence

LEVELS = {"INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}
_FORM = "%(levelname).1s%(asctime)s.%(msecs)03d000 %(process)5d %(filename)s:%(lineno)d] %(message)s"


def begin(level: str, handlers: Sequence[logging.Handler]) -> None:
    """Log from this level on to these handlers."""
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORM, datefmt="%m%d %H:%M:%S"))
    logging.basicConfig(level=LEVELS[level], handlers=handlers or [logging.NullHandler()])

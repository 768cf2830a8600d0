"""Values of options that commands share; argparse shows what is wrong with them."""

import argparse

from portslice.errors import PortsliceError
from portslice.ports import PortSet
from portslice.units import Bytes


def cpus(text: str) -> float:
    """A share of CPUs."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of CPUs: write e.g. 0.5")
    return value


def interval(text: str) -> float:
    """Seconds from one reading to the next."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"'{text}' is no interval: write seconds, from 0.1 to 3600")
    return value


def bytes_(text: str) -> int:
    """An amount with its unit."""
    try:
        return int(Bytes.parse(text))
    except PortsliceError as error:
        raise argparse.ArgumentTypeError(f"{error}: write e.g. 64MB") from None


def rate(text: str) -> int:
    """Bytes per second with their unit; 0 needs none."""
    return 0 if text == "0" else bytes_(text)


def ports(text: str) -> int | str:
    """How many, or which."""
    if text.isdecimal():
        return int(text)
    try:
        return str(PortSet.parse(text))
    except PortsliceError as error:
        raise argparse.ArgumentTypeError(f"{error}: write how many ports (5), or which (31000-31004)") from None

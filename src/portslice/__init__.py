"""Portslice: many containers, one IP address."""

__version__ = "0.1.0"

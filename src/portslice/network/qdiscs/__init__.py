"""Queueing disciplines, one module a kind: encode the kernel's options, install, read back."""

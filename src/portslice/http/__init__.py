"""The agent's endpoints. On TCP everything only reads; what changes the host is served on the Unix socket alone."""

"""The data plane: attachments and the layers they are made of, the BPF programs, queueing, and netlink."""

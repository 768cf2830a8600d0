"""A small Mesos master for one host, development and tests (`portslice master`)."""

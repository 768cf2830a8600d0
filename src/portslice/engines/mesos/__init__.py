"""The agent as one of an Apache Mesos cluster (`--master`)."""

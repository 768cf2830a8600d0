"""How a command ended, in the words of Mesos' command executor."""

import signal


def ended(exit_status: int, *, killed: bool) -> tuple[str, str]:
    """The TaskState's name and the message.

    :param exit_status: 0-255, 128 + n after signal n.
    :param killed: somebody wanted its end; then it is TASK_KILLED however it took it (launcher/executor.cpp).
    """
    name = signal.strsignal(exit_status - 128) if exit_status - 128 in signal.valid_signals() else None
    how = f"terminated with signal {name}" if name else f"exited with status {exit_status}"
    state = "TASK_KILLED" if killed else "TASK_FAILED" if exit_status else "TASK_FINISHED"
    return state, f"Command {how}"

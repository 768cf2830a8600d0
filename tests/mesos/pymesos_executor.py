# mypy: ignore-errors
"""An executor on pymesos: its task runs until it is killed, and what its framework says it says back."""

from pymesos import Executor, MesosExecutorDriver


class Echo(Executor):
    def launchTask(self, driver, task):
        driver.sendStatusUpdate({"task_id": task["task_id"], "state": "TASK_RUNNING"})

    def frameworkMessage(self, driver, message):
        driver.sendFrameworkMessage(message)

    def killTask(self, driver, task_id):
        driver.sendStatusUpdate({"task_id": task_id, "state": "TASK_KILLED"})


MesosExecutorDriver(Echo()).run()

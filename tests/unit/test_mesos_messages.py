"""Messages as a genuine agent and master of Mesos 1.11.0 sent them to each other, byte for byte."""

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from portslice.containers.container import Container
from portslice.containers.process import ProcessHandle
from portslice.engines.mesos import commands, records, resources, status, v1
from portslice.engines.mesos.schema import mesos_pb2 as mesos
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.record_pb2 import TaskRecord
from portslice.errors import ContainerError
from portslice.ports import PortSet
from portslice.resources import Resources, parse_attributes

ROOT = Path(__file__).parents[2]
SCHEMA = Path("portslice/engines/mesos/schema")

REGISTER = bytes.fromhex(
    "0a720a096c6f63616c686f73741a160a046370757310001a0909000000000000004032012a1a150a036d656d10001a09090000000000"
    "00904032012a1a160a046469736b10001a0909000000000000904032012a1a180a05706f7274731001220a0a080898f2011080fa0132"
    "012a380140c3cb011206312e31312e3022020801220208022202080322020804220208052202080622020807220208082a120a10480e"
    "9cdbe46e47b8b64b58e4f2b27446"
)
RUN_TASK = bytes.fromhex(
    "12600a04726f6f7412166d65736f732d6578656375746520696e7374616e63651a2b0a2935316232316166612d623961662d34326533"
    "2d613134322d3863353066393633343764642d30303030280032012a520208075202080252020801520208051a0a40302e302e302e30"
    "3a3022d6010a077461736b2d636712090a077461736b2d63671a290a2735316232316166612d623961662d343265332d613134322d38"
    "63353066393633343764642d533022180a046370757310001a0909000000000000e03f5a030a012a22170a036d656d10001a09090000"
    "0000000050405a030a012a221a0a05706f7274731001220a0a08089df201109ef2015a030a012a3a461a42693d303b207768696c6520"
    "5b202469202d6c74203630205d3b20646f20693d242828692b3129293b206563686f2068692024693b20736c65657020313b20646f6e"
    "6530012a1412120a10480e9cdbe46e47b8b64b58e4f2b274463001"
)
STATUS_UPDATE = bytes.fromhex(
    "0a9f020a2b0a2935316232316166612d623961662d343265332d613134322d3863353066393633343764642d3030303012090a077461"
    "736b2d63671a290a2735316232316166612d623961662d343265332d613134322d3863353066393633343764642d5330229c010a090a"
    "077461736b2d636710002a290a2735316232316166612d623961662d343265332d613134322d3863353066393633343764642d533031"
    "4b77ae60ecc0da413a090a077461736b2d636748025a10b10af2129d49425c8748cba5ba403c7e6a3a0a0d2a0b12093132372e302e30"
    "2e31188e5522260a2463303061383530612d313033372d343530642d386362612d363131313630383063326234294b77ae60ecc0da41"
    "3210b10af2129d49425c8748cba5ba403c7e38001218736c617665283129403132372e302e302e313a3236303531"
)


def test_the_modules_are_of_the_schema(tmp_path: Path) -> None:
    """Nobody changed the one without the other."""
    files = sorted((ROOT / "src" / SCHEMA).glob("*.proto"))
    compiler = [str(Path(sys.executable).with_name("protoc")), f"-I{ROOT / 'src'}"]
    subprocess.run([*compiler, f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *map(str, files)], check=True)
    made = {path.name: path.read_text() for path in (tmp_path / SCHEMA).iterdir()}
    assert made == {name: (ROOT / "src" / SCHEMA / name).read_text() for name in made}
    assert len(made) == 2 * len(files)


def test_registration() -> None:
    genuine = messages.RegisterSlaveMessage.FromString(REGISTER)
    ours = messages.RegisterSlaveMessage(
        slave=mesos.SlaveInfo(
            hostname="localhost",
            port=26051,
            resources=map(resources.resource, Resources.parse("cpus:2;mem:1024;disk:1024;ports:[31000-32000]")),
            checkpoint=True,
        ),
        version="1.11.0",
        resource_version_uuid=genuine.resource_version_uuid,
    )
    genuine.ClearField("agent_capabilities")
    assert ours.SerializeToString(deterministic=True) == genuine.SerializeToString(deterministic=True)


def test_attributes() -> None:
    scalar, ranges, text = resources.attributes(parse_attributes("u:1.5;slots:[1-2,4-4];rack:a"))
    assert (scalar.name, scalar.type, scalar.scalar.value) == ("u", mesos.Value.SCALAR, 1.5)
    assert [(each.begin, each.end) for each in ranges.ranges.range] == [(1, 2), (4, 4)]
    assert (text.type, text.text.value) == (mesos.Value.TEXT, "a")


def test_v1_json() -> None:
    """A framework and a task as a genuine agent showed them after these messages (GET_FRAMEWORKS, GET_TASKS)."""
    run = messages.RunTaskMessage.FromString(RUN_TASK)
    update = messages.StatusUpdateMessage.FromString(STATUS_UPDATE).update
    kinds = ("RESERVATION_REFINEMENT", "TASK_KILLING_STATE", "REVOCABLE_RESOURCES", "PARTITION_AWARE")
    framework_id = "51b21afa-b9af-42e3-a142-8c50f96347dd-0000"
    assert v1.to_json(run.framework) == {
        "user": "root",
        "name": "mesos-execute instance",
        "id": {"value": framework_id},
        "failover_timeout": 0.0,
        "checkpoint": False,
        "role": "*",
        "capabilities": [{"type": kind} for kind in kinds],
    }
    record = TaskRecord(framework=run.framework, task=run.task, updates=[update])
    agent_id = {"value": "51b21afa-b9af-42e3-a142-8c50f96347dd-S0"}
    allocated = {"allocation_info": {"role": "*"}}
    address = {"protocol": "IPv4", "ip_address": "127.0.0.1"}
    assert v1.to_json(records.task(record)) == {
        "name": "task-cg",
        "task_id": {"value": "task-cg"},
        "framework_id": {"value": framework_id},
        "agent_id": agent_id,
        "state": "TASK_STARTING",
        "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}, **allocated},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 64.0}, **allocated},
            {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31005, "end": 31006}]}, **allocated},
        ],
        "statuses": [
            {
                "task_id": {"value": "task-cg"},
                "state": "TASK_STARTING",
                "source": "SOURCE_EXECUTOR",
                "agent_id": agent_id,
                "executor_id": {"value": "task-cg"},
                "timestamp": update.status.timestamp,
                "uuid": base64.b64encode(update.uuid).decode(),
                "container_status": {
                    "container_id": {"value": "c00a850a-1037-450d-8cba-61116080c2b4"},
                    "network_infos": [{"ip_addresses": [address]}],
                    "executor_pid": 10894,
                },
            }
        ],
        "status_update_state": "TASK_STARTING",
        "status_update_uuid": base64.b64encode(update.uuid).decode(),
    }
    agents = mesos.TaskStatus(
        task_id={"value": "x"},
        state=mesos.TASK_LOST,
        source=mesos.TaskStatus.SOURCE_SLAVE,
        reason=mesos.TaskStatus.REASON_SLAVE_RESTARTED,
    )
    assert v1.to_json(agents) == {
        "task_id": {"value": "x"},
        "state": "TASK_LOST",
        "source": "SOURCE_AGENT",
        "reason": "REASON_AGENT_RESTARTED",
    }


def test_status_update() -> None:
    genuine = messages.StatusUpdateMessage.FromString(STATUS_UPDATE)
    was = genuine.update.status
    container = Container(
        id=was.container_status.container_id.value,
        name="task-cg",
        command=("sh",),
        uid=0,
        gid=0,
        sandbox=Path("/"),
        created=0,
        init=ProcessHandle(10894, 1),
    )
    update = status.update(
        genuine.update.framework_id,
        was.task_id,
        was.slave_id,
        mesos.TASK_STARTING,
        container=status.container_status(container, "127.0.0.1"),
    )
    assert update.uuid == update.status.uuid != was.uuid
    update.timestamp = update.status.timestamp = was.timestamp
    update.uuid = update.status.uuid = was.uuid
    ours = messages.StatusUpdateMessage(update=update, pid="slave(1)@127.0.0.1:26051")
    assert ours.SerializeToString() == STATUS_UPDATE


@pytest.mark.parametrize(
    ("exit_status", "killed", "state", "message"),
    [
        (0, False, mesos.TASK_FINISHED, "Command exited with status 0"),
        (0, True, mesos.TASK_FINISHED, "Command exited with status 0"),
        (3, False, mesos.TASK_FAILED, "Command exited with status 3"),
        (3, True, mesos.TASK_KILLED, "Command exited with status 3"),
        (143, True, mesos.TASK_KILLED, "Command terminated with signal Terminated"),
        (137, False, mesos.TASK_FAILED, "Command terminated with signal Killed"),
        (255, False, mesos.TASK_FAILED, "Command exited with status 255"),
    ],
)
def test_how_a_command_ended(exit_status: int, killed: bool, state: "mesos.TaskState", message: str) -> None:
    assert status.end(exit_status, killed=killed) == (state, message)


# From a task to a container


def test_a_task_as_a_container() -> None:
    message = messages.RunTaskMessage.FromString(RUN_TASK)
    assert message.ByteSize() == len(RUN_TASK)  # what is not in the schema is not lost
    request = commands.request(message.framework, message.task, {"MESOS_AGENT_ENDPOINT": "here"}, switch_user=True)
    assert request.command == ("sh", "-c", "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo hi $i; sleep 1; done")
    assert (request.name, request.framework_id) == ("task-cg", "51b21afa-b9af-42e3-a142-8c50f96347dd-0000")
    assert (request.cpus, request.mem, request.ports) == (0.6, 96 << 20, PortSet.parse("31005-31006"))
    assert (request.uid, request.gid) == (0, 0)
    assert request.environment == {
        "MESOS_AGENT_ENDPOINT": "here",
        "MESOS_ALLOCATION_ROLE": "*",
        "MESOS_CHECKPOINT": "0",
        "MESOS_FRAMEWORK_ID": "51b21afa-b9af-42e3-a142-8c50f96347dd-0000",
        "MESOS_SLAVE_ID": "51b21afa-b9af-42e3-a142-8c50f96347dd-S0",
    }


def test_resources_of_several_roles_add_up() -> None:
    message = messages.RunTaskMessage.FromString(RUN_TASK)
    message.task.resources.add(name="cpus", type=mesos.Value.SCALAR, scalar={"value": 1}, role="prod")
    more = {"range": [{"begin": 31007, "end": 31008}]}
    message.task.resources.add(name="ports", type=mesos.Value.RANGES, ranges=more)
    request = commands.request(message.framework, message.task, {}, switch_user=False)
    assert (request.cpus, request.ports) == (1.6, PortSet.parse("31005-31008"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"container": {}}, "container images and volumes"),
        ({"health_check": {}}, "health checks are not supported yet"),
        ({"max_completion_time": {"nanoseconds": 1}}, "a maximum completion time"),
        ({"command": {"value": "x", "uris": [{"value": "http://localhost/x"}]}}, "URIs are not fetched yet"),
        ({"command": {"value": ""}}, "The task has no command"),
        ({"command": {"value": "x", "user": "nobody-else"}}, "There is no user 'nobody-else' on this host"),
        (
            {"command": {"value": "x", "environment": {"variables": [{"name": "KEY", "type": 2}]}}},
            "The environment variable 'KEY' is a secret",
        ),
    ],
)
def test_what_cannot_be_launched(change: dict[str, Any], why: str) -> None:
    message = messages.RunTaskMessage.FromString(RUN_TASK)
    message.task.MergeFrom(
        mesos.TaskInfo(**{"name": "t", "task_id": message.task.task_id, "slave_id": message.task.slave_id, **change})
    )
    with pytest.raises(ContainerError, match=why):
        commands.request(message.framework, message.task, {}, switch_user=True)

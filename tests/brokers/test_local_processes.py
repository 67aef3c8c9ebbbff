"""The embedded broker shared by processes that are killed."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streampipe.brokers.local import LocalBroker
from streampipe.records import TopicPartition
from tests.brokers.helpers import Lab, eventually, numbered, read_to, unique

ROOT = Path(__file__).parents[2]

OPEN_TRANSACTION = """
import sys, time
from streampipe.brokers.local import LocalBroker
from streampipe.records import ProduceBatch
producer = LocalBroker(sys.argv[1], transaction_timeout_s=1.0).producer("dies")
producer.begin()
producer.produce(ProduceBatch(sys.argv[2], [None], [b"open"]))
print("open", flush=True)
time.sleep(60)
"""

CREATE = """
import sys
from streampipe.brokers.local import LocalBroker
print(LocalBroker(sys.argv[1]).admin().create_topic("same", 2))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python processes, and kills what is left of them in the end."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Worker:
    """A copy_worker process and the number of partitions it last said to own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.owned = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.owned = int(line)


def test_killed_members_lose_no_record_and_repeat_none(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "broker.db"
    with Lab(LocalBroker(path)) as lab:
        source, sink, group = lab.topic(6), lab.topic(2), unique("group")
        produced: list[bytes] = []
        partitions = [TopicPartition(source, p) for p in range(6)]
        copies = [TopicPartition(sink, p) for p in range(2)]

        def produce(count: int) -> None:
            values = numbered(f"v{len(produced)}-", count)
            lab.produce(source, *values, partitions=[i % 6 for i in range(count)])
            produced.extend(values)

        def worker() -> Worker:
            arguments = (str(path), group, source, sink, unique("tx"))
            return Worker(start("-m", "tests.brokers.copy_worker", *arguments))

        def done() -> int:
            return sum(lab.admin.committed(group).values())

        def kill_at_work(victim: Worker, other: Worker) -> None:
            eventually(lambda: victim.owned and other.owned, "both workers own partitions")
            before = done()
            produce(3000)
            eventually(lambda: done() > before, "the workers are at work")
            victim.process.kill()
            assert done() < len(produced), "the kill came too late to prove anything"

        first, second = worker(), worker()
        kill_at_work(first, second)
        kill_at_work(second, worker())
        eventually(lambda: done() == len(produced), "everything is copied")
        assert set(lab.admin.committed(group)) == set(partitions)
        ends = lab.admin.offsets(copies, "latest", "read_uncommitted")
        # a transaction that a killed worker began and sent no offsets in hides what came after it until its time is out
        eventually(lambda: lab.admin.offsets(copies, "latest") == ends, "no transaction of the dead is open")
        copied = [record.value or b"" for record in lab.read(*copies)]
        assert sorted(copied) == sorted(produced)


def test_a_killed_members_partitions_go_to_the_others_after_its_session(tmp_path: Path, start: Start) -> None:
    broker = LocalBroker(tmp_path / "broker.db", session_timeout_s=1.0)
    with Lab(broker) as lab:
        source, sink, group = lab.topic(2), lab.topic(1), unique("group")
        worker = Worker(start("-m", "tests.brokers.copy_worker", str(tmp_path / "broker.db"), group, source, sink, "t"))
        eventually(lambda: worker.owned == 2, "the worker owns everything")
        survivor = lab.member(group, source)
        eventually(lambda: survivor.step() >= 0 and len(survivor.owned()) == 1, "both own a partition")
        worker.process.kill()
        killed_at = time.monotonic()
        eventually(lambda: survivor.step() >= 0 and len(survivor.owned()) == 2, "the survivor owns everything")
        assert time.monotonic() - killed_at > 0.5, "the session of one second was not waited for"
        assert not survivor.told("lost") | survivor.told("revoked"), "what the survivor had did not move"


def test_an_open_transaction_of_a_killed_process_is_aborted(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "broker.db"
    with Lab(LocalBroker(path)) as lab:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        process = start("-c", OPEN_TRANSACTION, str(path), topic)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        process.kill()
        lab.produce(topic, b"after")
        reader = lab.reader(tp)
        assert reader.poll(10, 0.0) == []
        assert [record.value for record in read_to(reader, {tp: 2})] == [b"after"]


def test_processes_may_create_the_same_broker_at_once(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "folder" / "broker.db"
    processes = [start("-c", CREATE, str(path)) for _ in range(4)]
    outputs = [process.communicate()[0].strip() for process in processes]
    assert sorted(outputs) == ["False", "False", "False", "True"]
    with Lab(LocalBroker(path)) as lab:
        assert lab.admin.topics() == {"same": 2}

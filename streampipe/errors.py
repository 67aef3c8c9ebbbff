"""Every error a caller may see, drawn once; classes below in the same order.

    StreampipeError                    exit code 1
    ├── ConfigError                    3   a setting, a flag or streampipe.toml is wrong
    ├── TopologyError                  4   the processor module does not describe a valid topology
    ├── ModuleError                    4   the processor module cannot be imported
    ├── NotFound                       5   a topic, subject, schema or group that does not exist
    │   ├── UnknownTopic
    │   ├── UnknownSubject
    │   └── UnknownSchema
    ├── IncompatibleSchema             5   the registry refuses a schema
    ├── Unavailable                    6   broker or registry cannot be reached; trying again may help
    ├── ProcessingStopped              7   a policy or a Fatal stops the processor at a record
    ├── TransactionAborted             8   the open transaction is gone; rewind to the committed offsets
    │   ├── Fenced                     8   another producer or group member took over
    │   │   └── ClientLost             8   this client is of no use any more; open another one
    │   └── StateLost                  8   a state store on disk is of no use any more; its changelog is
    └── StateCorrupted                 8   a state store or changelog cannot be trusted

Exit code 2 is a wrong command line, 130 an interrupt, 0 success. Messages are one line: what, where, what to do.
"""

from __future__ import annotations

from typing import ClassVar


class StreampipeError(Exception):
    """Base of all errors that streampipe raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(StreampipeError):
    """A setting, a flag or a key of streampipe.toml is missing, unknown or malformed."""

    exit_code = 3


class TopologyError(StreampipeError):
    """The processor does not describe a valid topology (unknown column, missing key, not co-partitioned)."""

    exit_code = 4


class ModuleError(StreampipeError):
    """The processor module cannot be imported or holds no such processor."""

    exit_code = 4


class NotFound(StreampipeError):
    """Something that was named does not exist."""

    exit_code = 5


class UnknownTopic(NotFound):
    """The broker has no such topic."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} does not exist; create it with: streampipe topic create {topic}")


class UnknownSubject(NotFound):
    """The registry has no such subject."""

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"subject {subject!r} is not in the schema registry; register it by producing with --schema, "
            f"or put the schema into the schemas folder"
        )


class UnknownSchema(NotFound):
    """The registry has no schema of this id. A fact about one record, so it is a dead letter, not a stop."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"schema id {schema_id} is not in the schema registry")


class IncompatibleSchema(StreampipeError):
    """The registry refuses a schema that would break the subject's readers."""

    exit_code = 5


class Unavailable(StreampipeError):
    """The broker or the registry cannot be reached or did not answer in time. Nothing was lost; try again."""

    exit_code = 6


class ProcessingStopped(StreampipeError):
    """Processing stopped at a record, by policy or since a handler raised Fatal. Its offset is not committed."""

    exit_code = 7


class TransactionAborted(StreampipeError):
    """The open transaction cannot commit. Discard uncommitted state and rewind to the committed offsets."""

    exit_code = 8


class Fenced(TransactionAborted):
    """Another producer with the same transactional id, or a newer group generation, took over."""


class ClientLost(Fenced):
    """Nobody took over, but this client will not hear of its broker again: open another one."""


class StateLost(TransactionAborted):
    """A state store on disk cannot be read or written any more. Discard it; what is committed is in its changelog."""


class StateCorrupted(StreampipeError):
    """Bytes of a state store or changelog are not what this version writes."""

    exit_code = 8

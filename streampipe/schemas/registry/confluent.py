"""Any registry that speaks the Confluent API, by confluent-kafka's client.

That client waits for ever unless told otherwise, retries without a bound on the whole, asks again for every unknown id
and puts answers, addresses and credentials into its errors; this module bounds, remembers and redacts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import orjson
import tenacity
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

from streampipe.errors import ConfigError, IncompatibleSchema, Unavailable, UnknownSchema, UnknownSubject
from streampipe.schemas.avro import parse
from streampipe.schemas.model import SchemaError
from streampipe.schemas.port import RegisteredSchema

T = TypeVar("T")

UNKNOWN_FOR_S = 30.0
"""How long an unknown id is answered from memory."""
TIMEOUT_S = 1.0
TOTAL_S = 2.5
"""Of all tries of one call; one more time-out may follow."""
MAX_REFERENCES = 1_000

_NUMBERS = (
    "timeout",
    "max.retries",
    "retries.wait.ms",
    "retries.max.wait.ms",
    "cache.capacity",
    "cache.latest.ttl.sec",
)
_CONFLICT = 409


class ConfluentRegistry:
    """`port.Registry` over HTTP. `options` are Confluent's client settings, as text. Nothing is contacted yet.

    Raises ConfigError for options that the client does not know.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self.name = _redacted(url)
        settings: dict[str, Any] = {"timeout": TIMEOUT_S, "cache.latest.ttl.sec": 0.001}
        for key, value in options.items():
            settings[key] = _number(key, value) if key in _NUMBERS else value
        # Trying again is done here, where there is a bound on the whole.
        try:
            self._client = SchemaRegistryClient({**settings, "url": url, "max.retries": 0})
        except (ValueError, TypeError, KeyError, OSError) as e:
            reason = "a setting has a value of the wrong kind" if isinstance(e, TypeError) else _line(str(e))
            reason = reason.replace(url, self.name)
            raise ConfigError(f"schema registry {self.name}: {self._clean(reason, options)}") from None
        self._secrets = options
        self._texts: dict[int, str] = {}
        self._unknown: dict[int, float] = {}
        self._lock = threading.Lock()

    def by_id(self, schema_id: int) -> str:
        """See `port.Registry`. References are put into the text; SchemaError for one that is no Avro schema."""
        with self._lock:  # one look-up at a time: threads of one process ask for the same ids
            known = self._texts.get(schema_id)
            if known is not None:
                return known
            if self._unknown.get(schema_id, 0.0) > time.monotonic():
                raise UnknownSchema(schema_id)
            try:
                schema = self._call(lambda: self._client.get_schema(schema_id))
            except _Missing:
                self._unknown[schema_id] = time.monotonic() + UNKNOWN_FOR_S
                raise UnknownSchema(schema_id) from None
            return self._texts.setdefault(schema_id, self._text(schema))

    def latest(self, subject: str) -> RegisteredSchema:
        """See `port.Registry`."""
        return self._registered(subject, lambda: self._client.get_latest_version(subject))

    def version(self, subject: str, version: int) -> RegisteredSchema:
        """See `port.Registry`."""
        return self._registered(subject, lambda: self._client.get_version(subject, version))

    def register(self, subject: str, text: str) -> int:
        """See `port.Registry`."""
        schema = Schema(_checked(text), "AVRO")
        try:
            schema_id: int = self._call(lambda: self._client.register_schema(subject, schema))
        except _Refused as e:
            reasons = self.incompatibilities(subject, text) or [str(e)]
            raise IncompatibleSchema(f"subject {subject!r} refuses the schema: {reasons[0]}") from None
        self._unknown.pop(schema_id, None)
        return schema_id

    def incompatibilities(self, subject: str, text: str) -> list[str]:
        """See `port.Registry`. Raises ConfigError for a text that is no schema."""
        schema = Schema(_checked(text), "AVRO")
        try:
            fits = self._call(lambda: self._client.test_compatibility(subject, schema))
        except _Missing:
            return []
        except _Refused as e:
            return [str(e)]
        return [] if fits else ["it cannot read what the latest version wrote, or breaks the subject's other rules"]

    def subjects(self) -> list[str]:
        """See `port.Registry`."""
        return sorted(self._call(self._client.get_subjects))

    def close(self) -> None:
        """See `port.Registry`."""
        self._client.close()

    def _registered(self, subject: str, ask: Callable[[], Any]) -> RegisteredSchema:
        try:
            found = self._call(ask)
        except _Missing:
            raise UnknownSubject(subject) from None
        try:
            text = self._text(found.schema)
        except SchemaError as e:
            raise ConfigError(f"subject {subject!r} version {found.version}: {e}") from None
        return RegisteredSchema(subject, int(found.version), int(found.schema_id), text)

    def _text(self, schema: Schema) -> str:
        """The schema with the definitions of its references in place."""
        if not schema.references:
            return str(schema.schema_str)
        definitions: dict[str, Any] = {}
        self._collect(schema, definitions)
        return orjson.dumps(_Inliner(definitions).inline(_json(str(schema.schema_str)), "")).decode()

    def _collect(self, schema: Schema, definitions: dict[str, Any]) -> None:
        for reference in schema.references or ():
            if reference.name in definitions:
                continue
            if len(definitions) >= MAX_REFERENCES:
                raise SchemaError(f"more than {MAX_REFERENCES} references")
            subject, version = str(reference.subject), int(reference.version or 0)
            try:
                found = self._call(partial(self._client.get_version, subject, version))
            except _Missing:
                raise SchemaError(f"it refers to {subject!r} version {version}, which is gone") from None
            definitions[str(reference.name)] = _json(str(found.schema.schema_str))
            self._collect(found.schema, definitions)

    def _call(self, ask: Callable[[], T]) -> T:
        try:
            answer: T = _retrying()(self._once, ask)
            return answer
        except _Transient as e:
            raise Unavailable(f"schema registry {self.name} {e}; check that it runs and can be reached") from None

    def _once(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except SchemaRegistryError as e:
            raise self._meaning(e) from None
        except httpx2.TimeoutException:
            raise _Transient("did not answer in time") from None
        except (httpx2.HTTPError, OSError) as e:
            raise _Transient(f"cannot be reached ({type(e).__name__})") from None
        except OAuthTokenError as e:
            raise _Transient(f"got no OAuth token (status {e.status_code})") from None
        except ValueError:
            raise _Transient("answered something that is not JSON") from None

    def _meaning(self, error: SchemaRegistryError) -> Exception:
        status, code = int(error.http_status_code), error.error_code
        if status == httpx2.codes.NOT_FOUND:
            return _Missing()
        if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            return ConfigError(f"schema registry {self.name} refuses the credentials (status {status})")
        if status >= httpx2.codes.INTERNAL_SERVER_ERROR or status == httpx2.codes.TOO_MANY_REQUESTS:
            return _Transient(f"answered with status {status}")
        reason = self._clean(_line(str(error.error_message)), self._secrets)
        if status == _CONFLICT or code == _CONFLICT:
            return _Refused(reason)
        return ConfigError(f"schema registry {self.name} refuses the request (status {status}, code {code}): {reason}")

    def _clean(self, message: str, options: Mapping[str, str]) -> str:
        """The message without any value of a setting."""
        for value in options.values():
            if len(value) > 3:
                message = message.replace(value, "***")
        return message


class _Missing(Exception):
    """404."""


class _Refused(Exception):
    """409."""


class _Transient(Exception):
    """May pass; the message continues "schema registry X …"."""


def _retrying() -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Transient),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=0.5),
        stop=tenacity.stop_after_delay(TOTAL_S - TIMEOUT_S) | tenacity.stop_after_attempt(5),
        reraise=True,
    )


class _Inliner:
    """Puts definitions where a name is mentioned first, as a schema without references has it."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._placed: set[str] = set()

    def inline(self, node: Any, space: str) -> Any:
        if isinstance(node, str):
            return self._name(node, space)
        if isinstance(node, list):
            return [self.inline(branch, space) for branch in node]
        if not isinstance(node, dict):
            return node
        made = dict(node)
        if isinstance(node.get("name"), str):
            inherited = node["name"].rpartition(".")[0] or space
            space = node.get("namespace", inherited)
        for key in ("type", "items", "values"):
            if key in made and made[key] not in ("record", "enum", "fixed", "array", "map", "error"):
                made[key] = self.inline(made[key], space)
        if isinstance(made.get("fields"), list):
            made["fields"] = [self._field(field, space) for field in made["fields"]]
        return made

    def _field(self, field: Any, space: str) -> Any:
        if isinstance(field, dict) and "type" in field:
            return {**field, "type": self.inline(field["type"], space)}
        return field

    def _name(self, name: str, space: str) -> Any:
        full = name if "." in name or not space else f"{space}.{name}"
        found = full if full in self._definitions else name
        if found not in self._definitions or found in self._placed:
            return name
        self._placed.add(found)
        # A definition starts in no namespace: what it says of itself counts.
        return self.inline(self._definitions[found], "")


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise SchemaError(f"the registry's text is not JSON: {e.msg}") from None


def _checked(text: str) -> str:
    try:
        parse(text)
    except SchemaError as e:
        raise ConfigError(f"not a valid Avro schema: {e}") from None
    return text


def _number(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ConfigError(f"setting {key!r} of the schema registry must be a number") from None
    return int(number) if number.is_integer() and key != "timeout" else number


def _redacted(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")


def _line(message: str) -> str:
    return " ".join(message.split())[:300]

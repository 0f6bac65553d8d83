"""What users do in the shop, into `user-activity`: acknowledged by Kafka before it is to whoever tells it."""

import asyncio
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.cluster import Cluster
from streams.codecs import Undecodable, decoder, encode, user_key
from streams.events import UserActivity
from topologies.orders.api.bodies import NewActivity, Told
from topologies.orders.outbox import Place, now_ms
from topologies.orders.refusals import BadBody
from topologies.views.problems import Problem

ACKNOWLEDGED_S: Final = 5.0
LINGER_MS: Final = 5
_decode = decoder(UserActivity)


class NotTold(Problem):
    """Kafka has not acknowledged it: 503."""

    def __init__(self, event_id: str) -> None:
        """Say how to try again."""
        detail = f"the cluster did not acknowledge it in {ACKNOWLEDGED_S:g} s: tell it again with this eventId"
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE, "cluster-away", "The cluster is away", detail, eventId=event_id
        )


class Line(Protocol):
    """Where activity goes."""

    async def send(self, key: bytes, value: bytes) -> Place:
        """Where a record lies, once it is acknowledged. Raises KafkaError, OSError, TimeoutError."""
        ...

    async def close(self) -> None:
        """Send nothing more."""
        ...


@dataclass(frozen=True)
class Teller:
    """Makes events of what users do."""

    line: Line

    async def tell(self, user_id: int, activity: NewActivity) -> Told:
        """Send one event, and return where it lies. Raises NotTold, and BadBody for what no reader would take."""
        event_id = activity.eventId or uuid.uuid4().hex
        event = UserActivity(
            event_type=activity.eventType,
            user_id=user_id,
            event_id=event_id,
            session_id=activity.sessionId,
            product_id=activity.productId,
            category=activity.category,
            query=activity.query,
            occurred_at=now_ms(),
        )
        value = encode(event)
        try:
            _decode(value)
        except Undecodable as error:
            raise BadBody(str(error)) from error
        try:
            place = await self.line.send(user_key(user_id), value)
        except (KafkaError, OSError, TimeoutError) as error:
            raise NotTold(event_id) from error
        return Told(event_id, str(place))


@dataclass
class KafkaLine:
    """A topic; connects with the first record, and again with the next one after one that failed."""

    cluster: Cluster
    topic: str
    _producer: Any = None
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _ending: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def send(self, key: bytes, value: bytes) -> Place:
        """Send a record, and wait for it five seconds at most."""
        async with asyncio.timeout(ACKNOWLEDGED_S):
            producer = await self._connected()
            try:
                sent = await producer.send_and_wait(self.topic, value, key)
            except KafkaError:
                self._drop(producer)
                raise
        return Place(self.topic, sent.partition, sent.offset)

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self.cluster.aiokafka(), enable_idempotence=True, linger_ms=LINGER_MS, compression_type="lz4"
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    def _drop(self, producer: Any) -> None:
        """Let the next record have another producer: one that failed once may have lost count, and fail for ever."""
        if self._producer is producer:
            self._producer = None
            ending = asyncio.create_task(_end(producer))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Send what is waiting, for a moment, and end."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _end(producer)
        await asyncio.gather(*self._ending)


async def _end(producer: Any) -> None:
    with suppress(KafkaError, OSError, TimeoutError):  # nobody was told that what is lost here is there
        async with asyncio.timeout(ACKNOWLEDGED_S):
            await producer.stop()

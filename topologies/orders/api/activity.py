"""What users do in the shop, into `user-activity`: acknowledged by Kafka before it is to whoever tells it."""

import asyncio
import uuid
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.cluster import Cluster
from streams.codecs import encode, user_key
from streams.events import UserActivity
from topologies.orders.api.bodies import NewActivity, Told
from topologies.orders.outbox import Place, now_ms
from topologies.views.problems import Problem

ACKNOWLEDGED_S: Final = 5.0
LINGER_MS: Final = 5


class NotTold(Problem):
    """Kafka has not acknowledged it: 503."""

    def __init__(self, event_id: str) -> None:
        """Say how to try again."""
        detail = f"the cluster did not acknowledge it in {ACKNOWLEDGED_S:g} s: tell it again with this eventId"
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE, "cluster-away", "The cluster is away", detail, eventId=event_id
        )


@dataclass
class Teller:
    """Sends events of users; connects with the first one."""

    cluster: Cluster
    topic: str
    _producer: Any = None
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tell(self, user_id: int, activity: NewActivity) -> Told:
        """Send one event, and return where it lies. Raises NotTold."""
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
        try:
            async with asyncio.timeout(ACKNOWLEDGED_S):
                producer = await self._connected()
                sent = await producer.send_and_wait(self.topic, encode(event), user_key(user_id))
        except (KafkaError, OSError, TimeoutError) as error:
            raise NotTold(event_id) from error
        return Told(event_id, str(Place(self.topic, sent.partition, sent.offset)))

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

    async def close(self) -> None:
        """Send what is waiting, for a moment, and end."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                async with asyncio.timeout(ACKNOWLEDGED_S):
                    await producer.stop()
            except (KafkaError, TimeoutError):
                pass  # nobody was told that it is there

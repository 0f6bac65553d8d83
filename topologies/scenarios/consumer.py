"""One consumer of a scenario, a process of its own: `python -m topologies.scenarios.consumer`.

It joins the group that the first line of stdin names, prints what it reads as JSON lines, commits it, and leaves when
stdin ends: also when whoever started it is gone.
"""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Message

from topologies.scenarios.wire import Joining, Read, decode_joining, decode_payload, encode

AT_ONCE = 500
POLL_S = 0.1


def consume(joining: Joining, stop: threading.Event) -> None:
    """Read in the group until `stop` is set, then leave it."""
    consumer = Consumer(joining.config)
    consumer.subscribe([joining.topic])
    try:
        while not stop.is_set():
            messages = [one for one in consumer.consume(AT_ONCE, POLL_S) if one.error() is None]
            if messages:
                sys.stdout.buffer.write(encode([_read(one) for one in messages]) + b"\n")
                sys.stdout.buffer.flush()
                _commit(consumer)
    finally:
        consumer.close()


def _commit(consumer: Consumer) -> None:
    try:
        consumer.commit(asynchronous=False)
    except KafkaException:
        return  # the group is being shared out anew: whoever owns the partition then reads it again


def _read(message: Message) -> Read:
    key, value, partition, offset = message.key(), message.value(), message.partition(), message.offset()
    assert isinstance(key, bytes)
    assert isinstance(value, bytes)
    assert partition is not None
    assert offset is not None
    return Read(partition, offset, key.decode(), decode_payload(value), time.monotonic())


def main() -> None:
    """Consume until stdin ends."""
    joining, stop = decode_joining(sys.stdin.buffer.readline()), threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    consume(joining, stop)


if __name__ == "__main__":
    main()

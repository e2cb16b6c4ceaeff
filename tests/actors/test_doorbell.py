"""Idle workers are woken by what is put on their queue, and look by themselves where no bell rings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import dramatiq
import pytest

from actors.broker import Broker
from actors.doorbell import Consumer
from tests.waiting import until

# Longer than any test: who wakes before was woken.
LONG = 300_000


@pytest.fixture
def broker(services: Any) -> Iterator[Broker]:
    broker = Broker(url=services.valkey.url, namespace=f"bell-{uuid4()}", middleware=[])
    broker.declare_queue("default")
    yield broker
    broker.client.close()


class Sleeper:
    """Somebody who waits at a queue, in a thread."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.found: list[Any] = []
        self.turns = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()

    def _wait(self) -> None:
        while not self.ended.is_set():
            if message := next(self.consumer):
                self.found.append(message)
            self.turns += 1


@pytest.fixture
def sleeper(broker: Broker) -> Iterator[Callable[..., Sleeper]]:
    """Its bell can be heard when this returns."""
    made = []

    def sleeper(queue: str = "default", prefetch: int = 1) -> Sleeper:
        made.append(Sleeper(broker.consume(queue, prefetch, LONG)))
        until(lambda: broker.doorbell.listening)
        return made[-1]

    yield sleeper
    for each in made:
        each.ended.set()
    broker.doorbell.before_worker_shutdown(broker, None)
    for each in made:
        each.thread.join(30)
        assert not each.thread.is_alive()


def message(number: int = 1) -> dramatiq.Message[None]:
    return dramatiq.Message(queue_name="default", actor_name="any", args=(number,), kwargs={}, options={})


def test_a_message_wakes_whoever_waits_for_it(broker: Broker, sleeper: Callable[..., Sleeper]) -> None:
    waiting = sleeper()
    broker.enqueue(message())
    until(lambda: waiting.found)


def test_the_bell_rings_in_other_processes(
    broker: Broker, services: Any, sleeper: Callable[..., Sleeper]
) -> None:
    waiting = sleeper()
    other = Broker(url=services.valkey.url, namespace=broker.namespace, middleware=[])
    other.enqueue(message())
    until(lambda: waiting.found)


def test_who_has_room_again_takes_the_next(broker: Broker, sleeper: Callable[..., Sleeper]) -> None:
    waiting = sleeper(prefetch=1)
    broker.enqueue(message(1))
    broker.enqueue(message(2))
    until(lambda: waiting.found)
    assert len(waiting.found) == 1
    waiting.consumer.ack(waiting.found[0])
    until(lambda: len(waiting.found) == 2)


def test_delayed_messages_in_hand_are_looked_at(broker: Broker, sleeper: Callable[..., Sleeper]) -> None:
    """dramatiq passes them on between two looks; so the one who has some does not sleep long."""
    waiting = sleeper("default.DQ", 8)
    broker.enqueue(message(), delay=100)
    until(lambda: waiting.turns > 10)


def test_a_lost_subscription_comes_back(broker: Broker, sleeper: Callable[..., Sleeper]) -> None:
    waiting = sleeper()
    for client in broker.client.client_list(_type="pubsub"):
        broker.client.client_kill(client["addr"])
    # Rung or not: it is found, since nobody sleeps long while no bell is heard.
    broker.enqueue(message())
    until(lambda: waiting.found)
    until(lambda: broker.doorbell.listening)


def test_a_shutdown_wakes_everybody(sleeper: Callable[..., Sleeper]) -> None:
    """The fixture sees to it, by dramatiq's own signal, and waits for its sleepers."""
    assert sleeper().thread.is_alive()

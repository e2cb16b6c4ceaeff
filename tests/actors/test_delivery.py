"""The deliver actor."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from apiflask import APIFlask
from sqlalchemy import select

from app import dispatch, leases
from app.dev.mailbox import Mailbox
from app.extensions import db, redis_client
from app.models import Delivery, Job


def test_a_message_becomes_one_mail(app: APIFlask, member: Any, mailbox: Mailbox) -> None:
    with app.app_context():
        job_id = uuid4()
        db.session.add(
            Job(
                id=job_id,
                kind="export",
                definition="all_tasks",
                title="All tasks",
                owner_id=member.id,
                params={},
                status="failed",
                error_message="The source does not answer.",
                attempt=1,
            )
        )
        db.session.flush()
        leases.announce(db.session.connection(), job_id, 1, "failed")
        db.session.commit()
        delivery_id = db.session.scalars(select(Delivery.id)).one()
        broker = app.extensions["waybill.broker"]
        assert dispatch.send_delivery(delivery_id)
        assert redis_client().llen("dramatiq:high") == 1

        actor = broker.get_actor("deliver")
        assert actor.queue_name == "high"
        for _ in range(5):
            actor(delivery_id)
        mailbox.wait(to=member.email, subject="Failed", seconds=1)
        assert len(mailbox.mails()) == 1

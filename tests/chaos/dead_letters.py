"""What the dead letters hold."""

import pika


def dead_letters(broker_url: str) -> list[dict[str, object]]:
    """Take all of them; return each one's headers, with its message id and its job's, whose reply it may be."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    headers = []
    while True:
        method, properties, _ = channel.basic_get("nearmq.dead", auto_ack=True)
        if method is None:
            connection.close()
            return headers
        job_id = properties.correlation_id if properties.type == "reply" else properties.message_id
        headers.append({**(properties.headers or {}), "message_id": properties.message_id, "job_id": job_id})

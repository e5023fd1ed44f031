"""The worker: takes jobs from RabbitMQ, or in embedded mode from its own process, and answers them."""

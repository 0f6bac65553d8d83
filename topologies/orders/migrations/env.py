"""What Alembic runs: the migrations, on the connection that `topologies.orders.migrating` has opened."""

from alembic import context

from topologies.orders.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()

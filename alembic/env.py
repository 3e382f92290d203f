"""Run migrations on the connection that db.upkeep.migrate gives, or on one opened for the `alembic` command."""

from alembic import context
from db.schema.models import Base
from db.session import parse_url
from db.settings import default_url
from db.upkeep.migrate import locked_connection
from db.upkeep.readers import VERSION_TABLE


def run(connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
        compare_type=True,
        compare_server_default=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("migrations need a live database: `alembic upgrade --sql` is not supported")

given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with locked_connection(parse_url(default_url())) as opened:
        run(opened)

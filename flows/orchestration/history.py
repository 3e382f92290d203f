"""What a local Prefect server remembers: the flow runs of the last days. The results are ours, and stay."""

from __future__ import annotations

FLOW_RUN_DAYS = 7
EVENT_DAYS = 1


def settings(*, pages: bool) -> dict[str, str]:
    """For the server's environment. Events are what most of its database would consist of; only its pages show them."""
    return {
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": str(int(pages)),
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(FLOW_RUN_DAYS * 24 * 60 * 60),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{EVENT_DAYS}D",
    }


async def prune() -> None:
    """Delete what is older. Prefect itself does it once in an hour, which the server of one command does not live."""
    from prefect.server.database.dependencies import provide_database_interface
    from prefect.server.services import db_vacuum

    database = provide_database_interface()
    await db_vacuum.vacuum_old_flow_runs(db=database)
    await db_vacuum.vacuum_old_events(db=database)

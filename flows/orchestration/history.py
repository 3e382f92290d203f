"""How long a local Prefect server keeps flow runs: some days. Results are in our own database and are kept."""

from __future__ import annotations

FLOW_RUN_DAYS = 7
EVENT_DAYS = 1


def settings(*, pages: bool) -> dict[str, str]:
    """Settings for the server's environment. Without pages no events are stored; they would be most of its database."""
    return {
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": str(int(pages)),
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(FLOW_RUN_DAYS * 24 * 60 * 60),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{EVENT_DAYS}D",
    }


async def prune() -> None:
    """Delete older flow runs and events. Prefect does so once an hour, but a command's server seldom runs that long."""
    from prefect.server.database.dependencies import provide_database_interface
    from prefect.server.services import db_vacuum

    database = provide_database_interface()
    await db_vacuum.vacuum_old_flow_runs(db=database)
    await db_vacuum.vacuum_old_events(db=database)

"""Triggers that note every row written under an attempt that is not the current one, whatever the code believes."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from core.database.session import Database

TABLES = ("metric_points", "checkpoints", "artifacts", "stage_outputs")
_WHEN = "NEW.attempt <> 0 AND NOT EXISTS ({current})"
_CURRENT = "SELECT 1 FROM jobs WHERE id = NEW.job_id AND attempt = NEW.attempt AND status = 'running'"


def install(database: Database) -> None:
    """A retried job inherits rows under attempt 0; all others are an attempt's own."""

    def work(session: Session) -> None:
        session.execute(text("CREATE TABLE fault_audit (tablename text, job_id text, attempt integer)"))
        if database.is_postgresql:
            session.execute(text(_FUNCTION))
        for table in TABLES:
            session.execute(text(_trigger(table, is_postgresql=database.is_postgresql)))

    database.write(work)


_FUNCTION = f"""
CREATE FUNCTION note_stale_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF {_WHEN.format(current=_CURRENT)} THEN
    INSERT INTO fault_audit VALUES (TG_TABLE_NAME, NEW.job_id, NEW.attempt);
  END IF;
  RETURN NEW;
END $$
"""


def _trigger(table: str, *, is_postgresql: bool) -> str:
    if is_postgresql:
        return f"CREATE TRIGGER audit_{table} AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION note_stale_write()"
    return (
        f"CREATE TRIGGER audit_{table} AFTER INSERT ON {table} WHEN {_WHEN.format(current=_CURRENT)} "
        f"BEGIN INSERT INTO fault_audit VALUES ('{table}', NEW.job_id, NEW.attempt); END"
    )


def stale_writes(database: Database) -> list[tuple[str, str, int]]:
    rows = database.read(lambda session: session.execute(text("SELECT tablename, job_id, attempt FROM fault_audit")))
    return [(str(row[0]), str(row[1]), int(row[2])) for row in rows]

"""All rows of the table of faults, by name."""

from faults.api_kills import REQUESTS
from faults.disks import DISKS
from faults.kills import FAILPOINTS, KILLS
from faults.outages import BROKER, DATABASE, STORE
from faults.outcome import Row
from faults.real_trainer import REAL
from faults.steering import DRAINS, STORMS
from faults.zombies import RACES, ZOMBIES

_ALL = (
    KILLS,
    FAILPOINTS,
    REQUESTS,
    ZOMBIES,
    RACES,
    BROKER,
    DATABASE,
    STORE,
    DISKS,
    STORMS,
    DRAINS,
    REAL,
)
ROWS: dict[str, Row] = {row.name: row for row in _ALL}

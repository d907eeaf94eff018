"""All rows of the table of faults, by name."""

from dataclasses import replace

from faults.api_kills import REQUESTS
from faults.disks import DISKS
from faults.going_back import PROMOTED, PUT_BACK_POSTGRESQL, PUT_BACK_SQLITE
from faults.kills import FAILPOINTS, KILLS, settings_of
from faults.outages import BROKER, DATABASE, STORE
from faults.outcome import Row
from faults.races import RACES
from faults.real_trainer import REAL
from faults.steering import DRAINS, STORMS
from faults.zombies import ZOMBIES
from nodes.strikes import NODE_ROWS

REAL_GOAL = 20
REAL_OPERATIONS = 100
TWO_APIS_GOAL = 8
TWO_APIS_OPERATIONS = 208
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
    PUT_BACK_SQLITE,
    PUT_BACK_POSTGRESQL,
    PROMOTED,
    KILLS.with_trainer(REAL, REAL_GOAL),
    replace(FAILPOINTS.with_trainer(REAL, len(settings_of(REAL))), num_settings=len(settings_of(REAL))),
    ZOMBIES.with_trainer(REAL, REAL_GOAL),
    RACES.with_trainer(REAL, REAL_GOAL),
    BROKER.with_trainer(REAL, REAL_GOAL),
    DATABASE.with_trainer(REAL, REAL_GOAL),
    STORE.with_trainer(REAL, REAL_GOAL),
    DISKS.with_trainer(REAL, REAL_GOAL),
    STORMS.with_trainer(REAL, REAL_OPERATIONS),
    DRAINS.with_trainer(REAL, REAL_GOAL),
    REQUESTS.with_two_apis(REQUESTS.goal),
    STORMS.with_two_apis(TWO_APIS_OPERATIONS),
    DRAINS.with_two_apis(TWO_APIS_GOAL),
    BROKER.with_two_apis(TWO_APIS_GOAL),
    DATABASE.with_two_apis(TWO_APIS_GOAL),
    STORE.with_two_apis(TWO_APIS_GOAL),
    *NODE_ROWS,
)
"""All but `requests` also with the real trainer: no trainer runs there; nor where the database goes back, which is no
matter of trainers. Those that ask an API also with two of its processes. Those of jobs on two nodes need namespaces."""
ROWS: dict[str, Row] = {row.name: row for row in _ALL}

"""Schema with every table of the project."""

from typing import Any

from core.database.tables.access import ApiKey, ProjectLimits, RateBucket
from core.database.tables.arenas import Arena, ArenaLease, ArenaPair, ArenaVote, GrownDataset
from core.database.tables.audit import AuditEvent, EndedSession
from core.database.tables.base import Base
from core.database.tables.bookkeeping import IdempotencyKey, LostObject, ObjectCheck, SchemaSupport, SweeperLock
from core.database.tables.datasets import Dataset
from core.database.tables.exports import ExportRequest
from core.database.tables.feedback import FeedbackItem, ServedAnswer
from core.database.tables.gangs import GangMember
from core.database.tables.generations import Generation, GenerationPart
from core.database.tables.jobs import Attempt, Job, JobStage
from core.database.tables.judgements import JudgeAnswer, JudgedPair, Judgement
from core.database.tables.measurements import JobMeasurement, WorkerPresence
from core.database.tables.objects import Artifact, ArtifactFile, Checkpoint, Garbage, StageBuild, StageOutput
from core.database.tables.projects import Project
from core.database.tables.records import JobEvent, JobLogPart, JobSample, MetricBlock, MetricPoint, RewoundPoint
from core.database.tables.republications import RepublishRequest
from core.database.tables.rounds import Rounds, RoundStep
from core.database.tables.scores import ScoreRequest
from core.database.tables.sweeps import Sweep, SweepMember
from core.database.tables.uploads import Arrival, Upload, UploadPart
from core.database.tables.webhooks import WebhookDelivery, WebhookEndpoint

metadata = Base.metadata

JOB_TABLES: tuple[Any, ...] = (
    ScoreRequest,
    ExportRequest,
    RepublishRequest,
    RewoundPoint,
    MetricBlock,
    MetricPoint,
    JobEvent,
    JobSample,
    JobLogPart,
    JobStage,
    ArtifactFile,
    Artifact,
    Checkpoint,
    GangMember,
    Attempt,
)
"""Tables with rows of a job, in the order in which they can be emptied."""
TABLES = (
    Project, ProjectLimits, ApiKey, Dataset, Upload, UploadPart, Arrival, Job, *JOB_TABLES, StageOutput, StageBuild,
    Garbage, IdempotencyKey, SweeperLock, ObjectCheck, LostObject, AuditEvent, EndedSession, WebhookEndpoint,
    WebhookDelivery, JobMeasurement, WorkerPresence, RateBucket, SchemaSupport, Sweep, SweepMember,
    Arena, ArenaPair, ArenaLease, ArenaVote, GrownDataset, ServedAnswer,
    FeedbackItem, Generation, GenerationPart,
    Judgement, JudgedPair, JudgeAnswer, Rounds, RoundStep,
)  # fmt: skip

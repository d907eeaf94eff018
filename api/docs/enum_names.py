"""Names of choices in the OpenAPI document: a generated client has one type of that name for all fields."""

from typing import Any

from api.schemas.catalogue import ModelKind, OptionType, TrainedKind
from api.schemas.dataset_versions import RowChangeKind
from api.schemas.datasets import ContentFormat, DatasetStatus, IssueSeverity, OnError, Role, Ties, UploadStatus, Verdict
from api.schemas.feedback import FeedbackDatasetKind, Thumb
from api.schemas.health import PartState, ServiceState
from api.schemas.job_records import EventLevel, Split
from api.schemas.operations import ProcessKind, ProcessState
from api.schemas.pairs import PairFlag
from api.schemas.webhooks import DeliveryStatus
from core.domain.arenas.arenas import Choice, PromptRole
from core.domain.jobs.job_queries import JobSort
from core.domain.jobs.job_spec import ArtifactDtype, Optimizer, Precision, Schedule, ValidationMetric
from core.domain.jobs.methods import MethodName
from core.domain.judging.judgements import JudgeKind, LengthPreference, PairState
from core.domain.judging.rounds import ReferencePolicy

ENUM_NAMES: dict[str, Any] = {
    "ArenaChoice": Choice,
    "ArtifactDtype": ArtifactDtype,
    "ContentFormat": ContentFormat,
    "DatasetStatus": DatasetStatus,
    "DeliveryStatus": DeliveryStatus,
    "EventLevel": EventLevel,
    "FeedbackDatasetKind": FeedbackDatasetKind,
    "IssueSeverity": IssueSeverity,
    "JobSort": JobSort,
    "JudgeKind": JudgeKind,
    "LengthPreference": LengthPreference,
    "MethodName": MethodName,
    "ModelKind": ModelKind,
    "OnError": OnError,
    "Optimizer": Optimizer,
    "OptionType": OptionType,
    "PairFlag": PairFlag,
    "PairState": PairState,
    "PartState": PartState,
    "Precision": Precision,
    "ProcessKind": ProcessKind,
    "ProcessState": ProcessState,
    "PromptRole": PromptRole,
    "ReferencePolicy": ReferencePolicy,
    "Role": Role,
    "RowChangeKind": RowChangeKind,
    "Schedule": Schedule,
    "ServiceState": ServiceState,
    "Split": Split,
    "Thumb": Thumb,
    "Ties": Ties,
    "TrainedKind": TrainedKind,
    "UploadStatus": UploadStatus,
    "ValidationMetric": ValidationMetric,
    "Verdict": Verdict,
}

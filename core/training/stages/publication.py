"""The end of a run: the policy saved for publication, and read back before anybody gets it."""

import gc
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from core.domain.jobs.event_kinds import NOT_VERIFIED, UPDATE_ROUNDED_AWAY
from core.domain.jobs.methods import get_method
from core.training.measures.saved_folder import SavedPolicy, require_stored_weights
from core.training.measures.saved_policy_check import PolicyVerification, verify
from core.training.measures.saved_reward_check import RewardVerification, verify_reward_model
from core.training.model.adapters.adapter_files import PREFIX
from core.training.model.adapters.merging import RoundingLoss
from core.training.model.policies import ADAPTER_DIR, save_artifact, trained_digests
from core.training.observer import JsonValue
from core.training.stages.context import RunContext
from core.training.stages.memory_costs import available_bytes
from core.training.stages.model_checks import keep_packing_where_it_holds

ROUNDED_AWAY = 0.9
"""A smaller share of an update that is kept is worth a warning."""
_FLOAT32_BYTES = 4
_WORKING_SHARE = 1.25
"""Memory as a multiple of the float32 weights: they and what scoring needs besides."""


@dataclass(frozen=True)
class SavedArtifact:
    """Description of a saved model, kept after the model is freed."""

    directory: Path
    trained_digests: dict[str, str]
    rounding: RoundingLoss | None
    float32_bytes: int
    """Size of all weights in float32."""


def save_policy(context: RunContext, model: PreTrainedModel) -> SavedArtifact:
    """Save the policy; all ranks enter together, the leader writes."""
    directory = context.fresh_path("artifact")
    digests = trained_digests(model, context.plan, context.ranks)
    rounding = save_artifact(model, context.plan, directory, context.ranks)
    num_bytes = _FLOAT32_BYTES * sum(parameter.numel() for parameter in model.parameters())
    return SavedArtifact(directory, digests, rounding, num_bytes)


def read_back(context: RunContext, artifact: SavedArtifact) -> dict[str, JsonValue]:
    """Check the saved policy and return findings for the summary: `verification`, and `published` where measured.

    The trained model must be gone by now: one model in float32 is in memory at a time.

    Raises:
        PolicyNotSavedWell: it is not the trained policy.
    """
    gc.collect()  # hooks of its optimizer hold it in a circle
    found: dict[str, JsonValue] = {"published": published_facts(artifact, None)}
    device = _device(context, artifact.float32_bytes)
    if device is None:
        num_equal = _compare_files(context, artifact)
        compared = (
            "its weights were not compared" if num_equal is None else f"its {num_equal} tensors are those trained"
        )
        context.observer.event(
            "warning",
            NOT_VERIFIED,
            "No texts were scored with the saved policy: neither the device nor the machine has the memory for its "
            f"weights in float32 ({artifact.float32_bytes // 2**20} MiB). Read from its files, {compared}.",
            {"float32_bytes": artifact.float32_bytes, "num_weights_equal": num_equal},
        )
    else:
        data = context.validation or context.train
        saved = SavedPolicy(
            context.plan,
            artifact.directory,
            artifact.trained_digests,
            data,
            device,
            adjust=lambda model: keep_packing_where_it_holds(model, data),
        )
        verification: PolicyVerification | RewardVerification
        if get_method(context.plan.method).publishes_policy:
            verification = policy = verify(saved)
            found["published"] = published_facts(artifact, policy)
        else:
            verification = verify_reward_model(saved)
        found["verification"] = verification_facts(verification)
    _tell_of_rounding(context, artifact.rounding, found["published"])
    return found


def _compare_files(context: RunContext, artifact: SavedArtifact) -> int | None:
    """Compare what was trained with what lies in files, the adapter or all weights. Raises PolicyNotSavedWell."""
    if context.plan.lora is None:
        return require_stored_weights(artifact.directory, artifact.trained_digests)
    return require_stored_weights(artifact.directory / ADAPTER_DIR, artifact.trained_digests, PREFIX)


def verification_facts(verification: PolicyVerification | RewardVerification) -> dict[str, JsonValue]:
    """Return how the saved policy was checked, for the summary; margins are among the published facts."""
    return {key: value for key, value in asdict(verification).items() if key != "margins"}


def published_facts(artifact: SavedArtifact, verification: PolicyVerification | None) -> dict[str, JsonValue]:
    """Return size, rounding and margins of what is published, for the summary."""
    weights = artifact.directory.glob("*.safetensors")
    margins = None if verification is None else verification.margins
    return {
        "num_bytes_of_weights": sum(path.stat().st_size for path in weights),
        "rounding": None if artifact.rounding is None else asdict(artifact.rounding),
        "margins": None if margins is None else {**asdict(margins), "share_kept": margins.share_kept},
    }


def _device(context: RunContext, float32_bytes: int) -> str | None:
    """Choose the run's own device where there is room, else the CPU; None where there is none."""
    for device in dict.fromkeys((context.plan.device, "cpu")):
        available = available_bytes(torch.device(device))
        if available is None or available >= _WORKING_SHARE * float32_bytes:
            return device
    return None


def _tell_of_rounding(context: RunContext, loss: RoundingLoss | None, published: JsonValue) -> None:
    """Warn once where the requested type loses a part of what was trained."""
    if loss is None or loss.share_kept >= ROUNDED_AWAY:
        return
    margins = published.get("margins") if isinstance(published, Mapping) else None
    share = margins.get("share_kept") if isinstance(margins, Mapping) else None
    held_out = f", and {share:.0%} of the change of the held-out margin" if isinstance(share, float) else ""
    context.observer.event(
        "warning",
        UPDATE_ROUNDED_AWAY,
        f"Published in {loss.dtype}, as asked for, the policy keeps {loss.share_kept:.0%} of the adapter's update"
        f"{held_out}: {loss.share_unmoved:.0%} of the weights stay the base model's. "
        'With "artifact_dtype": "auto" nothing is lost, in twice the size.',
        asdict(loss),
    )

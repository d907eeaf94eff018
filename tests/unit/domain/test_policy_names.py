"""Names of policies: each form says which job's policy is meant, and other texts are none."""

import pytest

from core.domain.policy_names import PolicyName, parse_model_name, policy_name

OWN = policy_name("org/base", "team", None, "job_01abc")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("job_01abc", PolicyName(job_id="job_01abc")),
        ("job_01abc@ckpt_1", PolicyName(job_id="job_01abc", checkpoint_id="ckpt_1")),
        ("job_01abc@sft", PolicyName(job_id="job_01abc", is_sft=True)),
        (OWN, PolicyName(job_id="job_01abc")),
        (f"{OWN}:ckpt-step-20", PolicyName(job_id="job_01abc", step=20)),
        (f"{OWN}@sft", PolicyName(job_id="job_01abc", is_sft=True)),
        ("smollm2-135m-instruct", None),
        ("models@sft", None),
        ("ft:base:team:01abc", None),
    ],
)
def test_a_name_means_one_policy(name: str, meant: PolicyName | None) -> None:
    assert parse_model_name(name) == meant

"""The matrix tells a policy that is read rightly from one that is not; its loaders have environments of their own."""

import json
from pathlib import Path
from typing import Any

import pytest
from loaders.matrix import verdict
from loaders.policies import SHAPES, publish
from loaders.readers import prompt_ids, read_peft, read_transformers


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("loaders") / "0"
    return folder, publish(SHAPES["llama, Llama 2 tokenizer"], folder)


def read(policy: Path, expected: dict[str, Any]) -> dict[str, Any]:
    found = read_transformers(policy, expected) | {"package": "transformers", "version": "5"}
    return found | {"prompt_ids": prompt_ids(policy, expected["messages"])}


def test_a_published_policy_is_the_same(published: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = published
    assert verdict(expected, read(folder / "policy", expected), None).startswith("same (")
    adapted = read_peft(folder / "policy", expected) | {"package": "peft"}
    assert verdict(expected, adapted, None).startswith("same (")


def test_the_untouched_base_model_gives_other_ids(published: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = published
    assert verdict(expected, read(folder / "base", expected), None) == "**other ids**"


def test_planted_faults_are_told(published: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = published
    path = folder / "policy" / "generation_config.json"
    ends = path.read_text()
    path.write_text(json.dumps({"eos_token_id": 5}))
    assert "stops at 0 of" in verdict(expected, read(folder / "policy", expected), None)
    path.write_text(ends)
    path = folder / "policy" / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"]["rope_theta"] = 1e6
    path.write_text(json.dumps(config))
    wrong = read(folder / "policy", expected)
    assert verdict(expected, wrong, None).startswith("**differs by")
    assert verdict(expected, wrong, wrong).endswith("as for the base model")

"""Prompt and responses → ids and scored flags, for every kind of tokenizer and template."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from core.tokenization.errors import UnencodableRow, UnusableTokenizer
from core.tokenization.pair_tokenizer import PairTokenizer

from .conftest import BY_NAME, CHATML, byte_level, starting_with, write_folder

KIND_NAMES = tuple(BY_NAME)
WITH_TEMPLATE = tuple(name for name, kind in BY_NAME.items() if kind.template)
TEXTS = ("What is the capital of France?", "  lead  two\n\nlines ", "日本 12345 €", "a", "über\tcafé\u00a0!")
QUESTION = "What is the capital of France?"


def open_both(model_dirs: dict[str, Path], name: str) -> tuple[PairTokenizer, PreTrainedTokenizerFast]:
    return PairTokenizer.open(model_dirs[name]), PreTrainedTokenizerFast.from_pretrained(model_dirs[name])


def pair(prompt: object, chosen: object, rejected: object) -> dict:
    return {"line": 1, "prompt": prompt, "chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", KIND_NAMES)
def test_prompt_is_what_transformers_gives_to_generation(model_dirs: dict[str, Path], name: str, text: str) -> None:
    ours, theirs = open_both(model_dirs, name)
    if BY_NAME[name].template:
        message = [{"role": "user", "content": text}]
        expected = theirs.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
        assert ours.encode_prompt(message) == expected
    else:
        expected = theirs(text).input_ids
    assert ours.encode_prompt(text) == expected
    encoded = ours.encode_preference(pair(text, "Paris", "Rome"))
    assert encoded.prompt_ids == expected


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_prompt_and_answer_are_the_conversation_as_transformers_encodes_it(
    model_dirs: dict[str, Path], name: str
) -> None:
    ours, theirs = open_both(model_dirs, name)
    conversation = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "The capital of France is Paris."},
    ]
    whole = theirs.apply_chat_template(conversation, add_generation_prompt=False)["input_ids"]
    encoded = ours.encode_demonstration({"line": 1, "prompt": conversation[:1], "response": conversation[1:]})
    end = theirs.convert_tokens_to_ids(BY_NAME[name].end)
    last_end = len(whole) - 1 - whole[::-1].index(end)
    assert encoded.prompt_ids + encoded.response_ids == whole[: last_end + 1]
    assert encoded.response_scored == [True] * len(encoded.response_ids)


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_with_its_tail_a_row_is_the_whole_conversation_as_transformers_encodes_it(
    model_dirs: dict[str, Path], name: str
) -> None:
    """What a reward model reads: a newline behind the end too, on which nothing is scored."""
    ours, theirs = PairTokenizer.open(model_dirs[name], keeps_tail=True), open_both(model_dirs, name)[1]
    asked, answers = {"role": "user", "content": QUESTION}, ("Paris.", "It is Rome")
    found = ours.encode_preference(pair([asked], *answers))
    plain = open_both(model_dirs, name)[0]
    sides = ((found.chosen_ids, found.chosen_scored), (found.rejected_ids, found.rejected_scored))
    for answer, (ids, scored) in zip(answers, sides, strict=True):
        conversation = [asked, {"role": "assistant", "content": answer}]
        whole = theirs.apply_chat_template(conversation, add_generation_prompt=False)["input_ids"]
        assert found.prompt_ids + ids == whole
        without = plain.encode_demonstration({"line": 1, "prompt": [asked], "response": conversation[1:]})
        tail = len(ids) - len(without.response_ids)
        assert scored == without.response_scored + [False] * tail
        assert (ours.digest == plain.digest) is (tail == 0)


@pytest.mark.parametrize("name", KIND_NAMES)
def test_every_response_ends_with_one_end_token(model_dirs: dict[str, Path], name: str) -> None:
    ours, theirs = open_both(model_dirs, name)
    end = theirs.convert_tokens_to_ids(BY_NAME[name].end)
    encoded = ours.encode_preference(pair(QUESTION, "Paris.", "It is Rome"))
    assert ours.eos_ids[0] == end
    for ids, scored in (
        (encoded.chosen_ids, encoded.chosen_scored),
        (encoded.rejected_ids, encoded.rejected_scored),
    ):
        assert ids.count(end) == 1
        assert ids[-1] == end
        assert scored == [True] * len(ids)


@pytest.mark.parametrize("name", KIND_NAMES)
def test_start_token_is_written_once(model_dirs: dict[str, Path], name: str) -> None:
    ours, theirs = open_both(model_dirs, name)
    prompt = ours.encode_prompt(QUESTION)
    expected = BY_NAME[name].bos_per_prompt
    if theirs.bos_token_id is None:
        return
    assert prompt.count(theirs.bos_token_id) == expected
    assert prompt[:2] != [theirs.bos_token_id] * 2


@pytest.mark.parametrize("name", KIND_NAMES)
def test_response_text_survives(model_dirs: dict[str, Path], name: str) -> None:
    ours = PairTokenizer.open(model_dirs[name])
    encoded = ours.encode_preference(pair(QUESTION, "Paris, on the Seine; 日本 $46.", "Rome\n\nor Milan"))
    assert ours.decode(encoded.chosen_ids).strip() == "Paris, on the Seine; 日本 $46."
    assert ours.decode(encoded.rejected_ids).strip() == "Rome\n\nor Milan"


@pytest.mark.parametrize("name", ["gpt-2", "base llama"])
def test_plain_text_follows_the_prompt_without_a_space_of_its_own(model_dirs: dict[str, Path], name: str) -> None:
    ours = PairTokenizer.open(model_dirs[name])
    joined = ours.encode_preference(pair("It costs ", "$46", " $46"))
    shown = "".join(ours.show_tokens(joined.prompt_ids + joined.chosen_ids[:-1]))
    assert shown.removeprefix("<s>").strip() == "It costs $46"
    spaced = "".join(ours.show_tokens(joined.prompt_ids + joined.rejected_ids[:-1]))
    assert spaced.removeprefix("<s>").strip() == "It costs  $46"


def test_prompt_is_encoded_by_itself_where_a_joint_encoding_would_merge(model_dirs: dict[str, Path]) -> None:
    ours, theirs = open_both(model_dirs, "gpt-2")
    prompt, chosen = "The capital of Fran", "ce is Paris"
    joint = theirs(prompt + chosen).input_ids
    alone = theirs(prompt).input_ids
    assert joint[: len(alone)] != alone, "the fixture must merge across the border"
    encoded = ours.encode_preference(pair(prompt, chosen, "x"))
    assert encoded.prompt_ids == alone
    assert encoded.chosen_ids[:-1] == theirs(chosen).input_ids


@pytest.mark.parametrize("name", ["gpt-2", "qwen"])
def test_space_that_starts_a_response_is_kept(model_dirs: dict[str, Path], name: str) -> None:
    ours = PairTokenizer.open(model_dirs[name])
    encoded = ours.encode_preference(pair("Q:", " Paris", "Paris"))
    assert ours.decode(encoded.chosen_ids) == " Paris"
    assert ours.decode(encoded.rejected_ids) == "Paris"


@pytest.mark.parametrize("name", KIND_NAMES)
def test_empty_prompt_is_one_start_token(model_dirs: dict[str, Path], name: str) -> None:
    ours, theirs = open_both(model_dirs, name)
    encoded = ours.encode_demonstration({"line": 1, "prompt": "", "response": "The quick fox"})
    start = theirs.bos_token_id if theirs.bos_token_id is not None else theirs.eos_token_id
    assert encoded.prompt_ids == [start] == ours.encode_prompt("")
    plain = theirs("The quick fox", add_special_tokens=False).input_ids
    assert encoded.response_ids == [*plain, theirs.eos_token_id]


def test_only_assistant_turns_are_scored(model_dirs: dict[str, Path]) -> None:
    ours = PairTokenizer.open(model_dirs["smollm2"])
    response = [
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And Spain?"},
        {"role": "tool", "content": "lookup: Madrid"},
        {"role": "assistant", "content": "Madrid."},
        {"role": "user", "content": "Thanks"},
    ]
    prompt = [{"role": "user", "content": QUESTION}]
    encoded = ours.encode_demonstration({"line": 1, "prompt": prompt, "response": response})
    tokens = ours.show_tokens(encoded.response_ids)
    assert "".join(t for t, is_scored in zip(tokens, encoded.response_scored, strict=True) if is_scored) == (
        "Paris.<|im_end|>Madrid.<|im_end|>"
    )
    assert "".join(tokens) == (
        "Paris.<|im_end|>\n<|im_start|>user\nAnd Spain?<|im_end|>\n<|im_start|>tool\nlookup: Madrid<|im_end|>\n"
        "<|im_start|>assistant\nMadrid.<|im_end|>"
    )


@pytest.mark.parametrize("name", ["llama 2", "mistral", "llama 3", "gemma"])
def test_later_turns_are_encoded_as_generation_would_see_them(model_dirs: dict[str, Path], name: str) -> None:
    ours, theirs = open_both(model_dirs, name)
    response = [
        {"role": "assistant", "content": "Paris is."},
        {"role": "user", "content": "And the fox?"},
        {"role": "assistant", "content": "Brown."},
    ]
    prompt = [{"role": "user", "content": QUESTION}]
    encoded = ours.encode_demonstration({"line": 1, "prompt": prompt, "response": response})
    last_scored_run = len(encoded.response_ids) - encoded.response_scored[::-1].index(False)
    seen = encoded.prompt_ids + encoded.response_ids[:last_scored_run]
    history = [*prompt, *response[:2]]
    assert seen == theirs.apply_chat_template(history, add_generation_prompt=True)["input_ids"]


def test_messages_before_the_first_answer_belong_to_the_prompt(model_dirs: dict[str, Path]) -> None:
    ours = PairTokenizer.open(model_dirs["qwen"])
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    answer = {"role": "assistant", "content": "Paris."}
    whole = ours.encode_demonstration({"line": 1, "prompt": "", "response": [*asked, answer]})
    assert whole == ours.encode_demonstration({"line": 1, "prompt": asked, "response": [answer]})
    pairs = ours.encode_preference(pair([], [*asked, answer], [*asked, {"role": "assistant", "content": "Rome"}]))
    assert pairs.prompt_ids == whole.prompt_ids


def test_text_and_messages_of_the_same_words_are_the_same(model_dirs: dict[str, Path]) -> None:
    ours = PairTokenizer.open(model_dirs["qwen"])
    as_text = ours.encode_preference(pair(QUESTION, "Paris.", "Rome."))
    as_messages = ours.encode_preference(
        pair(
            [{"role": "user", "content": QUESTION}],
            [{"role": "assistant", "content": "Paris."}],
            [{"role": "assistant", "content": "Rome."}],
        )
    )
    assert as_text == as_messages


def test_messages_need_a_template(model_dirs: dict[str, Path]) -> None:
    ours = PairTokenizer.open(model_dirs["gpt-2"])
    with pytest.raises(UnencodableRow, match="no chat template"):
        ours.encode_prompt([{"role": "user", "content": QUESTION}])


def test_response_must_start_with_the_assistant(model_dirs: dict[str, Path]) -> None:
    ours = PairTokenizer.open(model_dirs["qwen"])
    with pytest.raises(UnencodableRow, match="starts with a message of the assistant"):
        ours.encode_preference(pair(QUESTION, [{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]))
    with pytest.raises(UnencodableRow, match="A response is empty"):
        ours.encode_preference(pair(QUESTION, "", "b"))


def test_end_ids_hold_all_that_stops_generation(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path, byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]), {"eos_token": "<|endoftext|>"}, CHATML
    )
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 7]}')
    assert PairTokenizer.open(folder).eos_ids == (2, 0, 7)


def test_start_token_asked_for_by_the_configuration(tmp_path: Path) -> None:
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "add_bos_token": True}
    ours = PairTokenizer.open(write_folder(tmp_path, byte_level(["<|endoftext|>"]), named, None))
    assert ours.encode_prompt("fox")[0] == 0
    assert ours.encode_prompt("fox").count(0) == 1


def test_start_token_written_twice_is_refused(tmp_path: Path) -> None:
    tokenizer = starting_with(byte_level(["<s>", "</s>"]), "<s>")
    template = "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    ours = PairTokenizer.open(write_folder(tmp_path, tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}, template))
    with pytest.raises(Exception, match="start token twice"):
        ours.encode_prompt("fox")


def test_digest_follows_tokenizer_and_template(tmp_path: Path) -> None:
    control, named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], {"eos_token": "<|im_end|>"}
    first = PairTokenizer.open(write_folder(tmp_path / "a", byte_level(control), named, CHATML))
    same = PairTokenizer.open(write_folder(tmp_path / "b", byte_level(control), named, CHATML))
    other_template = PairTokenizer.open(write_folder(tmp_path / "c", byte_level(control), named, CHATML + " "))
    other_tokens = PairTokenizer.open(write_folder(tmp_path / "d", byte_level([*control, "<x>"]), named, CHATML))
    assert first.digest == same.digest
    assert len({first.digest, other_template.digest, other_tokens.digest}) == 3


def test_template_sees_the_time_of_the_job(tmp_path: Path) -> None:
    template = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
    folder = write_folder(tmp_path, byte_level(["<|im_start|>", "<|im_end|>"]), {"eos_token": "<|im_end|>"}, template)
    on_a_day = PairTokenizer.open(folder, now=datetime(2026, 7, 4))
    assert "".join(on_a_day.show_tokens(on_a_day.encode_prompt("fox"))).startswith("04 Jul 2026\n<|im_start|>user")
    assert on_a_day.digest == PairTokenizer.open(folder, now=datetime(2026, 7, 4)).digest
    assert on_a_day.digest != PairTokenizer.open(folder, now=datetime(2026, 7, 5)).digest


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "not json"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": 7}, "added_tokens": []}'),
        ("tokenizer_config.json", "{}"),
    ],
)
def test_folder_without_a_usable_tokenizer_is_refused(tmp_path: Path, file: str, content: str | None) -> None:
    write_folder(tmp_path, byte_level(["</s>"]), {"eos_token": "</s>"}, None)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(UnusableTokenizer):
        PairTokenizer.open(tmp_path)


def test_neither_torch_nor_transformers_is_loaded(model_dirs: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from core.tokenization.preview import preview_row;"
        "from core.tokenization.encode_file import encode_file;"
        "from core.tokenization.pair_tokenizer import PairTokenizer;"
        "tokenizer = PairTokenizer.open(Path(sys.argv[1]));"
        "preview_row(tokenizer, {'line': 1, 'prompt': 'a', 'chosen': 'b', 'rejected': 'c'});"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(model_dirs["qwen"])]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[]", run.stderr

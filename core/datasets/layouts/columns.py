"""Meaning of columns: declared by each layout for those it reads, guessed by name for the others."""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final


class Role(StrEnum):
    PROMPT = "prompt"
    """The question, or a part of it."""
    RESPONSE = "response"
    VERDICT = "verdict"
    """Which of the responses is better."""
    VERDICT_PLACE = "turn judged"
    """Which turn of a conversation the verdict is about."""
    SCORE = "score"
    """How good a response is: a rank, a rating, a reward."""
    SYSTEM = "system"
    HISTORY = "history"
    """Earlier turns, before the prompt."""
    TOOLS = "tools"
    LABEL = "label"
    """Is the response desirable?"""
    WEIGHT = "weight"
    PROVENANCE = "provenance"
    """Where the row comes from, and when."""


PREAMBLE: Final[Mapping[str, Role]] = {
    "system": Role.SYSTEM,
    "system_prompt": Role.SYSTEM,
    "system_message": Role.SYSTEM,
    "system_instruction": Role.SYSTEM,
    "history": Role.HISTORY,
}
"""Columns that every layout puts before its prompt, unless it declares them as something else."""
CONTEXT: Final[Mapping[str, Role]] = {"tools": Role.TOOLS, "functions": Role.TOOLS, "documents": Role.TOOLS}
"""Columns that every layout gives to the chat template; see `rows.context`."""
SCORE_PAIRS: Final = (
    ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"), ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"), ("chosen_reward", "rejected_reward"),
    ("reward_chosen", "reward_rejected"), ("chosen_avg_rating", "rejected_avg_rating"),
)  # fmt: skip
"""Scores of the two sides of a pair, which may contradict it."""
RANK_PAIRS: Final = (("chosen_rank", "rejected_rank"), ("rank_chosen", "rank_rejected"))
"""Ranks of the two sides, of which 1 is the best."""

_ROLES: Final[Mapping[Role, str]] = {
    Role.SYSTEM: "system systemprompt systemmessage systeminstruction sysprompt systemcontent systemtext persona "
    "developer developerprompt developermessage",
    Role.HISTORY: "history chathistory dialoguehistory conversationhistory previousturns",
    Role.PROMPT: "prompt instruction question query input context passage passages trajectory initialreasonsteps "
    "prefix documents post article background evidence knowledge problem userprompt usermessage conversation dialogue "
    "dialog turns previousmessages contextmessages",
    Role.TOOLS: "availabletools tooldefinitions toolschemas functiondefinitions toolslist apis",
    Role.VERDICT: "preference preferences winner winnermodela winnermodelb winnertie verdict betterresponse "
    "betterresponseid choice preferred label labels humanpreference overallpreference preferencestrength vote better "
    "betteranswer tie flipped swapped isflipped isswapped isreversed",
    Role.LABEL: "ktotag tag issafe isdesirable desirable isgood feedback thumb thumbs accepted approved upvoted liked "
    "helpful iscorrect correct acceptable",
    Role.RESPONSE: "chosen rejected chosenresponse rejectedresponse chosenmessages rejectedmessages rejectedanswer "
    "response completion output candidates generations answerw answerl nonpreferredoutput preferredoutput",
    Role.SCORE: "saferresponseid score scores rating ratings reward rewards rank ranks ranking rankings margin "
    "scorechosen scorerejected chosenscore rejectedscore chosenrating rejectedrating",
    Role.WEIGHT: "weight weights sampleweight lossweight",
}
_MEANINGS: Final = {name: role for role, names in _ROLES.items() for name in names.split()}
_SAID: Final = "responses?|answers?|completions?|outputs?|texts?|messages?|reply|replies|contents?|solutions?|summary"
_SIDES: Final = "chosen|rejected|preferred|nonpreferred|dispreferred|accepted|winning|losing|good|bad|better|worse"
_SIDE = re.compile(rf"(?:{_SIDES})(?:{_SAID})|(?:{_SAID})(?:{_SIDES})")
_SCORES: Final = "scores?|ratings?|rewards?|ranks?|ranking|quality|grade"
_SCORED = re.compile(
    rf"(?:{_SCORES})(?:{_SIDES}|\d|[ab])|(?:{_SIDES}|(?:response|answer|output|model)[ab\d])(?:avg)?(?:{_SCORES})"
)
NEGATIVE: Final = re.compile(
    r"reject|dispref|non_?pref|unpref|loser|losing|\bbad(?![a-z])|worse|worst|negative", re.IGNORECASE
)
"""In the name of a column of worse responses."""
POSITIVE: Final = re.compile(
    r"chosen|prefer|accepted|winner|winning|\bgood(?![a-z])|better|best|positive", re.IGNORECASE
)
"""In the name of a column of better responses."""
_MESSAGE_ROLES: Final[Mapping[Role, str]] = {
    Role.WEIGHT: "lossmask mask masked ismasked trainable istrained learn loss train training lossweight",
    Role.RESPONSE: "thought thoughts reasoningdetails thinkingblocks reasoning reasoningcontent thinking refusal",
    Role.TOOLS: "functions function functioncall tools toolcalls",
    Role.PROMPT: "attachments files documents citations",
}
"""What keys of messages are for, beside those that columns have as well."""
_OF_MESSAGES: Final = _MEANINGS | {name: role for role, names in _MESSAGE_ROLES.items() for name in names.split()}
_SEPARATORS = re.compile(r"[\s_.\-]+")


@lru_cache(4096)
def meaning_of(name: str) -> Role | None:
    """Return what a column of that name usually holds, however it is spelt; None for an unknown name."""
    squeezed = _SEPARATORS.sub("", name).lower()
    if squeezed in _MEANINGS:
        return _MEANINGS[squeezed]
    if _SIDE.fullmatch(squeezed):
        return Role.RESPONSE
    return Role.SCORE if _SCORED.fullmatch(squeezed) else None


@lru_cache(4096)
def meaning_in_message(key: str) -> Role | None:
    """What a key of a message is for, beside its role and content; None for a key that says nothing."""
    return _OF_MESSAGES.get(_SEPARATORS.sub("", key).lower())


MEANINGFUL_NAMES: Final = frozenset(
    (
        *PREAMBLE, *(name for pair in SCORE_PAIRS for name in pair),
        "prompt", "instruction", "question", "query", "input", "context", "trajectory", "initial_reason_steps",
        "preference", "winner", "label", "labels", "choice", "better_response_id", "status",
    )
)  # fmt: skip
"""Names to be read from a file even where no layout uses them."""

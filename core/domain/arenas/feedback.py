"""Vocabulary of feedback on served answers."""

from enum import StrEnum


class FeedbackKind(StrEnum):
    THUMB = "thumb"
    EDIT = "edit"
    PREFERENCE = "preference"

"""Reasons for which a trainer is stopped before its end."""

from enum import StrEnum


class StopReason(StrEnum):
    CANCEL = "cancel"
    SAVE = "save"
    """Cancelled by the user, who wants the policy as it is."""
    PAUSE = "pause"
    DRAIN = "drain"
    """This worker is to end, or that of another node of the attempt."""
    RUNTIME = "runtime"
    """`max_runtime_seconds` are over."""
    RUNG = "rung"
    """It has come to where its sweep compares members; nobody asked."""

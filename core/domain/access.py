"""Vocabulary of access rights."""

from enum import StrEnum

DEFAULT_PROJECT_ID = "default"


class Scope(StrEnum):
    """Scope of a key; each includes the ones before it."""

    READ = "read"
    """Look at everything of the project, and download."""
    WRITE = "write"
    """Upload, submit, steer, delete."""
    ADMIN = "admin"
    """And see what concerns the deployment."""

    def includes(self, other: "Scope") -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(other)

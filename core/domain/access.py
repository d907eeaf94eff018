"""Vocabulary of access rights."""

from enum import StrEnum

DEFAULT_PROJECT_ID = "default"


class Scope(StrEnum):
    """Scope of a key; from `write` on each includes all before it, `use` and `read` include nothing else."""

    USE = "use"
    """Ask models: chats, completions, scores, feedback. Look at nothing else."""
    READ = "read"
    """Look at everything of the project, and download."""
    WRITE = "write"
    """Upload, submit, steer, delete."""
    ADMIN = "admin"
    """And make and end the project's keys, and read its audit trail."""
    OPERATOR = "operator"
    """And what concerns the deployment: other projects' keys and audit trails, metrics, versions, disks."""

    def includes(self, other: "Scope") -> bool:
        order = list(Scope)
        return self is other or (
            order.index(self) >= order.index(Scope.WRITE) and order.index(self) > order.index(other)
        )

"""Limits of what a job's trainings have printed, as it is kept and shown."""

MAX_LOG_BYTES = 1024**2
"""Size of a job's log in UTF-8: its tail, in an answer."""
MAX_WRITE_BYTES = 256 * 1024
"""Size of one write."""
SMALL_PART_BYTES = 16 * 1024
"""Writes are joined up to that size, so that a job that prints little and long has few rows."""

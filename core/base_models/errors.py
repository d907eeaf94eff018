"""Errors of base models. Messages name the model and its files, never their paths on the disk."""

from core.domain.errors import Conflict, InvalidRequest, NotFound, Unavailable


class BaseModelNotFound(NotFound):
    code = "base-model-not-found"
    title = "There is no such base model"


class InvalidModelName(InvalidRequest):
    code = "invalid-base-model-name"
    title = "Not the name of a base model"


class InvalidModelSpec(InvalidRequest):
    code = "invalid-base-model-spec"
    title = "Not something that can be pulled"


class PickleRefused(InvalidRequest):
    code = "pickle-refused"
    title = "Pickled weights are never loaded"


class RemoteCodeRefused(InvalidRequest):
    code = "remote-code-refused"
    title = "The base model wants to run its own code"


class SymlinkRefused(InvalidRequest):
    code = "symlink-refused"
    title = "The base model links out of the models directory"


class IncompleteBaseModel(InvalidRequest):
    code = "incomplete-base-model"
    title = "The base model lacks a file"


class DamagedBaseModel(InvalidRequest):
    code = "damaged-base-model"
    title = "A file of the base model is damaged"


class UnsupportedBaseModel(InvalidRequest):
    code = "unsupported-base-model"
    title = "This kind of model cannot be tuned here"


class BaseModelTaken(Conflict):
    code = "base-model-name-taken"
    title = "Another base model has that name"


class SourceUnavailable(Unavailable):
    code = "base-model-source-unavailable"
    title = "The base model cannot be fetched just now"


class ChecksumMismatch(Unavailable):
    code = "base-model-checksum-mismatch"
    title = "What was fetched is not what is pinned"


class ConversionFailed(Unavailable):
    code = "base-model-conversion-failed"
    title = "The weights could not be converted"


class ModelsDirectoryUnusable(Unavailable):
    code = "models-directory-unusable"
    title = "The models directory cannot be written"

"""What can go wrong in the store, the indexes and a search over them.

StoreError
├── InvalidArgument        a parameter, name or column is unknown or out of range
├── InvalidExpression      a filter expression cannot be read, or does not fit the schema
├── CollectionNotFound
├── PartitionNotFound
├── FieldNotFound
├── DimensionMismatch
├── MetricMismatch
├── AlreadyExists
├── VersionExpired         the version asked for has been removed
├── Incomplete             other rows were written than there are
├── BlobNotFound           no blob has this key
├── IndexCorrupt           a blob is missing, or fails its digest or its header checks
└── StoreUnavailable       the store cannot be reached or refused the operation
"""


class StoreError(Exception):
    """Base of the index store's exceptions.

    Attributes:
        message: lower case, names the value and what is allowed.
        field: the argument at fault, such as `params.ef`; None when no single one is.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidArgument(StoreError):
    """A parameter, name or column is unknown or out of range."""


class InvalidExpression(StoreError):
    """A filter expression cannot be read, or does not fit the schema.

    Attributes:
        expression: the whole text; the message quotes the part around the place. Empty in an error that was recorded.
        column: the 1-based character of the expression that is at fault; 0 in an error that was recorded.
    """

    def __init__(self, message: str, *, field: str | None = "expr", expression: str = "", column: int = 0) -> None:
        super().__init__(message, field=field)
        self.expression = expression
        self.column = column


class CollectionNotFound(StoreError):
    """No collection has this name."""


class PartitionNotFound(StoreError):
    """The collection has no partition of this name."""


class FieldNotFound(StoreError):
    """The collection has no field of this name."""


class DimensionMismatch(StoreError):
    """Vectors have another number of dimensions than the field."""


class MetricMismatch(StoreError):
    """Another metric was named than the field's."""


class AlreadyExists(StoreError):
    """The name that should be claimed belongs to a collection or partition already."""


class VersionExpired(StoreError):
    """The version asked for has been removed."""


class Incomplete(StoreError):
    """The files of an export have another number of rows than the version."""


class BlobNotFound(StoreError):
    """No blob has this key."""


class IndexCorrupt(StoreError):
    """A blob is missing, or fails its digest or its header checks; it was not searched."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or refused the operation; another try may succeed."""

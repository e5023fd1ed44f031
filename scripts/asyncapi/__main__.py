"""`make asyncapi` writes the document."""

from scripts.asyncapi.document import PATH, document
from scripts.asyncapi.written import written

PATH.write_text(written(document()))

"""Field types that several models share: names, labels, references, bounded lists."""

from typing import Annotated, Final

from pydantic import Field

LABEL_NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"

# A region's name is also a label value, an environment value and part of Pod names.
Region = Annotated[str, Field(min_length=1, max_length=32, pattern=LABEL_NAME_PATTERN)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]
Percent = Annotated[int, Field(ge=1, le=100)]
NodeCount = Annotated[int, Field(ge=0, le=1000)]
Count = Annotated[int, Field(ge=0)]
ShortText = Annotated[str, Field(max_length=256)]

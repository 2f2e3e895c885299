"""Types of the values of a fleet file."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from bus import subjects

Name = Annotated[str, Meta(pattern=f"^{subjects.NAME_RULE}$")]
#: Of a variable that holds what must not stand in a file that many read.
Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]

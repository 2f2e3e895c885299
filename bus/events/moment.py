"""A point in time, as events carry it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

#: RFC 3339 with an offset. One without an offset is no event of ours: comparing it with a real time would raise far from here.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]

"""Ranges of configuration values, shared by all sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

KNOWN_KEYS_ONLY = ConfigDict(extra="forbid")  # numbers may come as text
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Evaluations = Annotated[int, Field(ge=560)]  # one projection of the design search

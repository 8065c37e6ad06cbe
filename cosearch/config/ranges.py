"""Ranges of configuration values, shared by all sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

KNOWN_KEYS_ONLY = ConfigDict(extra="forbid")  # numbers may come as text
MOST = 10**15  # of a count: more is a slip of the keyboard, and does not fit into what computes with it
Positive = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
SEEDS = 2**64  # so many there are
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
Threads = Annotated[int, Field(ge=0, le=1024)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Evaluations = Annotated[int, Field(ge=560, le=MOST)]  # one projection of the design search

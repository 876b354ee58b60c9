"""What the APIs take: pydantic models that check, and that the OpenAPI documents describe."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.errors import InputError
from services.web.limits import LARGEST_BATCH, check_batch

B = TypeVar("B", bound=BaseModel)
Preset = Literal["12h", "fleet", "next"]
SMALLEST_SERIES = 30
"""Points that the seed's /predict asks for."""
_DURATION = r"^([0-9]{1,6}[smhd])+$"

Number = Annotated[float, Field(allow_inf_nan=False)]
Series = Annotated[list[Number | None], Field(min_length=1, max_length=1_000_000)]
StepSeconds = Annotated[
    float,
    Field(
        ge=0.001,
        le=86_400 * 366,
        allow_inf_nan=False,
        description="Seconds between points. Finer ones than 300 are averaged to 300 for 12h.",
    ),
]
Threshold = Annotated[
    float, Field(gt=0, lt=1, description="Instead of each label's own, chosen in training.")
]
Duration = Annotated[str, Field(pattern=_DURATION, max_length=32)]


class Body(BaseModel):
    """Strict, and without fields that nobody reads: a misspelt one would be silently ignored."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _one_of(**kinds: str) -> dict[str, Any]:
    """The JSON schema's way to say: one of these fields, the others missing or null."""
    return {
        "oneOf": [
            {
                "required": [name],
                "properties": {
                    other: {"type": kinds[name] if other == name else "null"} for other in kinds
                },
            }
            for name in kinds
        ]
    }


class PredictSeries(Body):
    series: Annotated[
        list[Number | None],
        Field(
            min_length=SMALLEST_SERIES,
            max_length=1_000_000,
            description="The newest point last; null is a missing one.",
        ),
    ]
    step_seconds: StepSeconds = 300.0


class PredictLine(Body):
    text: Annotated[str, Field(description="One line of a log, as shipped or bare.")]


class PredictLog(Body):
    text: Annotated[str, Field(description="The log of one job.")]
    threshold: Threshold | None = None


class ForecastBody(Body):
    """``series`` or ``csv``."""

    model_config = ConfigDict(json_schema_extra=_one_of(series="array", csv="string"))

    series: Annotated[list[Series], Field(min_length=1, max_length=LARGEST_BATCH)] | None = None
    csv: Annotated[str, Field(min_length=1, description="timestamp,value rows")] | None = None
    step_seconds: StepSeconds | None = Field(
        default=None, description="Default: from the CSV's timestamps, else 300."
    )
    preset: Preset = Field(
        default="12h",
        description="12h: 12 hours from a week of points. fleet: 12 hours from a day of them, ten "
        "times faster. next: one step from 30 points.",
    )
    quantiles: (
        Annotated[
            list[Annotated[float, Field(gt=0, lt=1)]],
            Field(min_length=1, max_length=20, description="Of those the model has: 0.1 0.5 0.9."),
        ]
        | None
    ) = None
    horizons: (
        Annotated[
            list[Duration],
            Field(min_length=1, max_length=100, description="Only these, such as 1h and 12h."),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ForecastBody:
        if (self.series is None) == (self.csv is None):
            raise ValueError("expected series or csv, not both")
        return self


class QueryBody(Body):
    query: Annotated[str, Field(min_length=1, max_length=10_000, description="PromQL.")]
    prometheus: Annotated[str, Field(max_length=100)] | None = Field(
        default=None, description="Name of a configured server; default: the first one."
    )
    preset: Preset = "12h"
    step_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] | None = Field(
        default=None, min_length=1, max_length=20
    )
    horizons: list[Duration] | None = Field(default=None, min_length=1, max_length=100)
    linear_window: Duration = Field(
        default="6h", description="Of predict_linear's line, for comparison."
    )


class LogsBody(Body):
    lines: Annotated[list[str], Field(min_length=1, max_length=LARGEST_BATCH)]


class DiagnoseBody(Body):
    """``text`` or ``texts``."""

    model_config = ConfigDict(json_schema_extra=_one_of(text="string", texts="array"))

    text: str | None = Field(default=None, description="The log of one job.")
    texts: Annotated[list[str], Field(min_length=1, max_length=LARGEST_BATCH)] | None = None
    threshold: Threshold | None = None
    language: Literal["zh", "en"] | None = Field(
        default=None, description="Of the actions; default: both."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> DiagnoseBody:
        if (self.text is None) == (self.texts is None):
            raise ValueError("expected text or texts, not both")
        return self


class LineOfStream(Body):
    """A line of an NDJSON request to /v1/logs; a bare JSON string is one too."""

    text: str


class LogOfStream(Body):
    """A line of an NDJSON request to /v1/diagnose; a bare JSON string is one too."""

    text: str
    threshold: Threshold | None = None


class SeriesOfStream(Body):
    """A line of an NDJSON request to /v1/forecast; a bare JSON array is one too."""

    series: Series
    step_seconds: StepSeconds = 300.0
    preset: Preset = "12h"


BATCHES: dict[type[BaseModel], tuple[str, ...]] = {
    ForecastBody: ("series",),
    LogsBody: ("lines",),
    DiagnoseBody: ("texts",),
}
"""Fields whose items are rows, by body."""


def check_body(cls: type[B], value: Any, *, where: str = "body") -> B:
    """Raises InputError: which field, and why. RequestRefusedError (413): too many rows."""
    if isinstance(value, dict) and "save_dir" in value:
        raise InputError(
            "save_dir is refused: a request must not choose which files the server loads",
            where=f"{where}.save_dir",
            expected="no save_dir; the served version is the one that passed the parity gate",
            next_command="see which is served: GET /v1/models",
        )
    if isinstance(value, dict):
        for name in BATCHES.get(cls, ()):
            if isinstance(value.get(name), list):
                check_batch(len(value[name]))
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join([where, *(str(part) for part in first["loc"][:6])])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(
            f"the request does not fit{more}",
            where=place[:200],
            got=first["msg"].removeprefix("Value error, "),
        ) from error

"""Settings: ``params.yaml`` read once, at the edge, into frozen objects that refuse unknown keys.

A stage loads the file, takes its own section and passes plain values on; nothing below imports this
module. The comments of ``params.yaml`` explain each key.
"""

from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lurm.months import check_consecutive, month_number


def _month(value: str) -> str:
    month_number(value)
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"expected an IANA time zone such as 'Europe/Paris', got {value!r}"
        ) from error
    return value


def _n_interests(value: object) -> object:
    if value != "auto" and (type(value) is not int or value < 2):
        raise ValueError(f"expected auto or a number greater than or equal to 2 (got {value!r})")
    return value


Month = Annotated[str, AfterValidator(_month)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Memory = Annotated[str, Field(pattern=r"^[1-9]\d{0,5}(MB|GB)$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
START = "start"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Calendar(Section):
    timezone: Annotated[str, AfterValidator(_timezone)]


class MonthEntry(Section):
    previous: str
    items: str


class UpdateCatalog(Section):
    memory_limit: Memory


class ValidateLogs(Section):
    tolerance_hours: Annotated[float, Field(ge=0, le=24 * 7)]
    max_outside_month: Share
    max_unknown_items: Share
    max_bad_rows: Share
    max_repeated_rows: Share
    heavy_user: Count
    memory_limit: Memory


class CompareMonths(Section):
    window: Count
    max_volume_change: Positive
    max_mix_distance: Share
    mix_column: str


class Training(Section):
    release: Count
    through: Month
    months: tuple[Month, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _months_end_at_through(self) -> "Training":
        check_consecutive(self.months, "training.months")
        if self.months[-1] != self.through:
            raise ValueError(
                f"training.months must end at training.through ({self.through}), "
                f"ends at {self.months[-1]}"
            )
        return self


class EmbedItems(Section):
    text_columns: tuple[str, ...] = Field(min_length=1, strict=False)
    min_word_count: Count
    covered_items: Annotated[float, Field(gt=0, le=1)]
    width: Count
    text_width: Annotated[int, Field(ge=0)]
    beta_days: Positive
    most_behaviors: Count
    temperature: Positive
    batch_size: Annotated[int, Field(ge=2)]
    steps: Count
    learning_rate: Positive
    seed: Seed


class ClusterInterests(Section):
    start: Literal["standing", "anew"]
    min_kept_cosine: Share
    method: Literal["auto", "hdsc", "kmeans", "two_level_kmeans"]
    n_interests: Annotated[int | Literal["auto"], PlainValidator(_n_interests)]
    sample_size: Count
    rounds: Count
    sparsity: Annotated[float, Field(ge=0)]
    interests_per_item: Count
    soft_temperature: Positive
    memory_limit: Memory
    seed: Seed

    @property
    def number(self) -> int:
        """The number of interests, once it is known.

        Raises:
            ValueError: it is still "auto".
        """
        if self.n_interests == "auto":
            raise ValueError("cluster_interests.n_interests: expected a number by now, got 'auto'")
        return self.n_interests

    def with_number(self, n_interests: int) -> "ClusterInterests":
        """These settings with that number of interests in place of "auto"."""
        return self.model_copy(update={"n_interests": n_interests})


class BuildBoi(Section):
    engine: Literal["duckdb", "spark"]
    memory_limit: Memory
    spark_master: str


class PretrainSmen(Section):
    space: Literal["standing", "new"]
    scales: dict[Name, Count] = Field(min_length=1)
    n_anchors: Count
    width: Count
    published_width: Annotated[int, Field(ge=0)]
    columns: Annotated[tuple[str, ...], Field(strict=False)] | Literal["auto"]
    block_width: Count
    interest_start: Literal["centres", "random"]
    gate: Literal["per_scale", "complement"]
    empty_periods: Literal["skip", "zeros"]
    aggregation: Literal["gru", "mean"]
    temperature: Positive
    batch_size: Annotated[int, Field(ge=2)]
    epochs: Count
    learning_rate: Positive
    min_view_share: Annotated[float, Field(gt=0, le=1)]
    max_view_share: Annotated[float, Field(gt=0, le=1)]
    min_kept_share: Annotated[float, Field(gt=0, le=1)]
    seed: Seed

    @model_validator(mode="after")
    def _view_shares_in_order(self) -> "PretrainSmen":
        if self.min_view_share > self.max_view_share:
            raise ValueError(
                f"pretrain_smen.min_view_share ({self.min_view_share}) must not exceed "
                f"max_view_share ({self.max_view_share})"
            )
        return self


class MeasureConfidence(Section):
    max_users: Count
    min_group: Annotated[int, Field(ge=3)]
    seed: Seed


class EncodeUsers(Section):
    engine: Literal["process", "spark"]
    spark_master: str


class IndexUsers(Section):
    exact_up_to: Count
    min_recall: Share
    queries: Count
    seed: Seed


class Limits(Section):
    note: Positive
    warn: Positive
    retrain: Positive | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Limits":
        limits = [limit for limit in (self.note, self.warn, self.retrain) if limit is not None]
        if limits != sorted(limits):
            raise ValueError(f"expected note, warn and retrain in ascending order, got {limits}")
        return self


class DriftLimits(Section):
    behaviors_change: Limits
    users_change: Limits
    new_users_change: Limits
    activity_psi: Limits
    mix_psi: Limits
    interest_psi: Limits
    interest_psi_training: Limits
    anchor_psi: Limits
    unknown_items: Limits
    unknown_distance: Limits
    norm_change: Limits
    mean_shift: Limits
    turn: Limits
    auc_loss: Limits
    calibration_gap: Limits


class WatchDrift(Section):
    window: Count
    limits: DriftLimits


class Boosting(Section):
    trees: Count
    learning_rate: Positive
    leaves: Annotated[int, Field(ge=2)]
    leaf_size: Count
    column_share: Annotated[float, Field(gt=0, le=1)]
    patience: Count


HeadKind = Literal["logistic", "sparse", "mlp", "boosting"]


class Evaluation(Section):
    as_of: Month
    label_months: tuple[Month, ...] = Field(strict=False)
    folds: Annotated[int, Field(ge=2)]
    repeats: Count
    head: Literal["auto", "logistic", "mlp", "boosting", "blend"]
    candidates: tuple[HeadKind, ...] = Field(min_length=1, strict=False)
    calibrate: bool
    choice_users: Count
    penalties: tuple[Positive, ...] = Field(min_length=1, strict=False)
    boosting: Boosting
    hidden: Count
    learning_rate: Positive
    batch_size: Count
    max_epochs: Count
    patience: Count
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    min_class_size: Count
    most_users: Count
    seed: Seed

    @model_validator(mode="after")
    def _penalties_ascend(self) -> "Evaluation":
        if list(self.penalties) != sorted(set(self.penalties)):
            raise ValueError(
                f"evaluation.penalties: expected ascending numbers, got {list(self.penalties)}"
            )
        return self

    @model_validator(mode="after")
    def _labels_come_after(self) -> "Evaluation":
        if not self.label_months:
            return self
        check_consecutive(self.label_months, "evaluation.label_months")
        if month_number(self.label_months[0]) <= month_number(self.as_of):
            raise ValueError(
                f"evaluation.label_months must begin after evaluation.as_of ({self.as_of}), "
                f"begin at {self.label_months[0]}"
            )
        return self


class Gate(Section):
    max_auc_loss: Share
    max_head_loss: Share
    max_cosine_loss: Share
    max_empty_interests: Share
    confidence: Annotated[float, Field(gt=0, lt=1)]


class Explorer(Section):
    items: Count
    neighbors: Count
    bags: Count
    lives: Annotated[int, Field(ge=0)]
    memory_limit: Memory
    seed: Seed


class Cards(Section):
    data: str
    source: str
    licence: str
    personal_data: str


class Task(Section):
    labels: str
    column: str
    value: str | None = None
    inputs: Literal["vector", "vector+counts"] = "vector"


class Params(Section):
    calendar: Calendar
    months: dict[Month, MonthEntry] = Field(min_length=1)
    update_catalog: UpdateCatalog
    validate_logs: ValidateLogs
    compare_months: CompareMonths
    training: Training
    embed_items: EmbedItems
    cluster_interests: ClusterInterests
    build_boi: BuildBoi
    pretrain_smen: PretrainSmen
    measure_confidence: MeasureConfidence
    encode_users: EncodeUsers
    index_users: IndexUsers
    evaluation: Evaluation
    gate: Gate
    watch_drift: WatchDrift
    explorer: Explorer
    cards: Cards
    tasks: dict[Name, Task]

    @model_validator(mode="after")
    def _months_hang_together(self) -> "Params":
        months = list(self.months)
        check_consecutive(months, "months")
        for month, before in zip(months, [START, *months], strict=False):
            if self.months[month].previous != before:
                raise ValueError(
                    f"months.{month}.previous: expected {before!r}, "
                    f"got {self.months[month].previous!r}"
                )
        for name, used in {
            "training.months": self.training.months,
            "evaluation.as_of": [self.evaluation.as_of],
            "evaluation.label_months": self.evaluation.label_months,
        }.items():
            absent = [month for month in used if month not in self.months]
            if absent:
                raise ValueError(f"{name}: {', '.join(absent)} not among months; land them first")
        if month_number(self.evaluation.as_of) < month_number(self.training.through):
            raise ValueError(
                f"evaluation.as_of ({self.evaluation.as_of}) must not lie before training.through "
                f"({self.training.through}): the models would have seen what the tasks ask about"
            )
        asking = [name for name, task in self.tasks.items() if task.value is not None]
        if asking and not self.evaluation.label_months:
            raise ValueError(
                f"evaluation.label_months: expected the months that {', '.join(asking)} ask about, got "
                "none; name them, or keep tasks of attributes only"
            )
        if self.training.months[0] != months[0]:
            raise ValueError(
                f"training.months must begin with the first month ({months[0]}): "
                "a user's whole life is in the model"
            )
        return self


def parse_params(settings: Any, where: str = "params.yaml") -> Params:
    """The settings as a frozen object.

    Raises:
        ValueError: a key is unknown, missing, of the wrong type or out of range; all are listed.
    """
    try:
        return Params.model_validate(settings)
    except ValidationError as error:
        raise ValueError(
            f"{where} is not valid:\n" + "\n".join(map(_in_one_line, error.errors()))
        ) from None


def _in_one_line(fault: ErrorDetails) -> str:
    key = ".".join(map(str, fault["loc"])) or "the whole"
    if fault["type"] == "extra_forbidden":
        return f"  {key}: no such setting; is it misspelt?"
    message = fault["msg"].removeprefix("Value error, ")
    told = fault["type"] in ("value_error", "missing") or isinstance(fault["input"], dict | list)
    return f"  {key}: {message}" + ("" if told else f" (got {fault['input']!r})")


def load_params(path: Path | str = "params.yaml") -> Params:
    """The settings of the YAML file at ``path``; see :func:`parse_params` for what is refused."""
    try:
        settings = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    return parse_params(settings, str(path))

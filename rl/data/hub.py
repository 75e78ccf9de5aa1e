"""Problems from a data set of the Hugging Face hub."""

from __future__ import annotations

from itertools import islice

from pydantic import Field

from ...parts import AbsentError, UserError
from ...records import Problem
from .columns import Row, Table, problems


class Hub(Table):
    """A data set by its id on the Hugging Face hub, or a local folder that is laid out like one."""

    id: str = Field(min_length=1)
    """The data set, such as openai/gsm8k."""
    config: str | None = None
    """Which of its configurations, such as main."""
    split: str | None = "train"
    """Split to train on; slices such as train[:1000] work. Null where there is nothing but an evaluation set."""
    eval_split: str | None = None
    """Split for evaluation only, such as test; unset holds some of `split` out."""
    revision: str | None = None
    """Branch, tag or commit; a commit makes a run repeatable whatever becomes of the data set."""

    def load(self, seed: int) -> list[Problem]:
        """The split's problems in its order."""
        return [] if self.split is None else self._problems(self.split, self.limit)

    def load_evaluation(self, seed: int) -> list[Problem] | None:
        """The problems of `eval_split`."""
        return None if self.eval_split is None else self._problems(self.eval_split, None)

    def _problems(self, split: str, limit: int | None) -> list[Problem]:
        rows = self.rows(split, limit)
        return problems(rows, self, source=f"{self.id} ({split})", label=split.partition("[")[0])

    def rows(self, split: str, limit: int | None) -> list[Row]:
        """The columns of a split's first `limit` rows.

        Raises:
            UserError: the data set could not be loaded; AbsentError where the hub is out of reach.
        """
        try:
            import datasets
        except ImportError as error:
            raise UserError("data.name=hub needs datasets: pip install 'underdog-rl[train]'") from error
        try:
            found = datasets.load_dataset(self.id, self.config, split=split, revision=self.revision)
        except Exception as error:  # datasets raises whatever its builders, the hub and the network raise
            reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            kind = AbsentError if isinstance(error, ConnectionError) else UserError
            raise kind(
                f"the data set {self.id!r} could not be loaded ({reason}); check data.id, data.config and "
                "data.split, or use data.name=file with a local copy as data.path"
            ) from error
        if self.keep is not None:
            found = found.select_columns([name for name in found.column_names if self.reads(name)])
        return [dict(row) for row in islice(found, limit)]

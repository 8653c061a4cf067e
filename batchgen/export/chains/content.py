"""What there is about the lines of an export of chains."""

from batchgen.export.chains.line import ChainLine
from batchgen.export.chains.lines import steps_in_lines
from batchgen.export.chains.table import column_groups
from batchgen.export.chosen_columns import ChosenColumns
from batchgen.export.columns import Columns
from batchgen.export.request import ExportRequest
from batchgen.export.value_type import ValueType
from batchgen.export.writer import Content
from batchgen.store import Chain


class ChainContent(Content):
    """`lines` are those of the page that is being written, by their numbers; `step_types` are the
    types of the values of the steps."""

    def __init__(self, chain: Chain, request: ExportRequest, *, has_samples: bool) -> None:
        super().__init__(
            request.extras, has_samples=has_samples, has_failed=request.has_failed,
            chosen=ChosenColumns(request.columns) if request.columns else None,
            is_guarded=request.is_guarded,
        )  # fmt: skip
        self.chain, self.plan = chain, chain.plan
        self.columns = Columns(column_groups(chain.plan, request.step))
        self.step_types = {
            name: ValueType() for name in steps_in_lines(chain.plan, request.step)
        }  # fmt: skip
        self.lines: dict[int, ChainLine] = {}

    def extras_of_line(self, line: ChainLine) -> dict[str, str | None]:
        """Those of its answer."""
        answering = line.own or line.failed
        if answering is None or not self.extras:
            return dict.fromkeys(self.extras)
        return self.extras_of(answering.result)

"""What there is about the lines of an export of chains."""

from collections.abc import Sequence
from typing import Any

from batchgen.endpoints import Endpoint
from batchgen.export.chains.line import ChainLine, link_of
from batchgen.export.chains.lines import steps_in_lines
from batchgen.export.chains.table import column_groups
from batchgen.export.chosen_columns import ChosenColumns
from batchgen.export.columns import Columns
from batchgen.export.request import ExportRequest
from batchgen.export.value_type import ValueType
from batchgen.export.writer import Content, edit_mark
from batchgen.items import Recipe
from batchgen.prompts import Renderer
from batchgen.prompts.chain_row import ChainRow
from batchgen.store import Chain, ResultRow


class ChainContent(Content):
    """`step_types` are the types of the values of the steps."""

    def __init__(self, chain: Chain, request: ExportRequest, *, has_samples: bool) -> None:
        super().__init__(
            request.extras, has_samples=has_samples, has_failed=request.has_failed,
            chosen=ChosenColumns(request.columns) if request.columns else None,
            is_guarded=request.is_guarded, has_edits=request.needs_reviews,
        )  # fmt: skip
        self.chain, self.plan, self.step = chain, chain.plan, request.step
        self.columns = Columns(column_groups(chain.plan, request.step))
        self.step_types = {
            name: ValueType() for name in steps_in_lines(chain.plan, request.step)
        }  # fmt: skip
        self._lines: dict[int, ChainLine] = {}
        self._recipe_ids: dict[int, int] = {}
        self._rows: dict[int, ChainRow] = {}

    def begin_page(self, lines: Sequence[ChainLine]) -> None:
        """They are written next; their details are there."""
        self._lines = {line.id: line for line in lines}
        self._recipe_ids = {id_: details.recipe_id for id_, details in self.details.items()}
        self._rows = {}

    def messages_of(self, row: ResultRow) -> list[dict[str, Any]] | None:
        chain_row = self._chain_row(row)
        if chain_row.input.prompt is not None:  # a request line, as the user has given it
            return None
        own = self._renderer(row)
        earlier = {link.recipe_id: self._renderer_by(link.recipe_id)
                   for _, link in chain_row.before()}  # fmt: skip
        return chain_row.messages(own, earlier)

    def endpoint_of(self, row: ResultRow) -> Endpoint:
        return self._renderer(row).endpoint_of(self._chain_row(row).input)

    def _chain_row(self, row: ResultRow) -> ChainRow:
        """The row that the answer is of."""
        found = self._rows.get(row.id)
        if found is None:
            line, recipes = self._lines[row.id], self._recipe_ids
            assert line.own is not None
            gathered = link_of(line.own, recipes).gathered
            links = line.links(line.own.number, recipes)
            found = self._rows[row.id] = ChainRow.of(
                self.chain, line.own.number, row.id, row.input, links, gathered
            )
        return found

    def _renderer_of(self, recipe: Recipe) -> Renderer:
        return Renderer(recipe, self.plan.names)

    def extras_of_line(self, line: ChainLine) -> dict[str, str | None]:
        """Those of its answer."""
        answering = line.own or line.failed
        found: dict[str, str | None] = dict.fromkeys(self.extras)
        if answering is not None and self.extras:
            found = self.extras_of(answering.result)
        return {**found, **edit_mark(self.has_edits and line.has_edits)}

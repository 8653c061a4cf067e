"""What follows when the server rejects a parameter. Its name goes into the message; what batchgen
itself added is left out from then on; and what the recipe asks for with every item, and the server
takes from nobody, is a halt.
"""

from collections import defaultdict
from collections.abc import Callable

from msgspec.structs import replace

from batchgen.items import Answer, Failure, Item, Reason, Reply, Trouble
from batchgen.llm.rejections import Rejection, rejected_parameter, wants_stream
from batchgen.text.sentences import as_sentence
from batchgen.worker.requests import Prepared

_STATUSES = frozenset({400, 404, 422})
# What is sent without being of the recipe, in words for a message.
_PLACES = {"stream": "model.stream", "stream_options": "the stream_options of model.stream"}
_ANEW = "Remove it from the config, then enqueue the pool again, replacing the old recipe."
_AGAIN = {"stream": "Remove it from the config."}


_AtServer = tuple[str, int]
"""A server, and the number of a recipe."""


class RejectedParameters:
    """What one worker knows of them, by server: it learns which recipes had an answer there.
    `leave_out(server, recipe_id, name)` returns False when that parameter was left out before."""

    def __init__(
        self, leave_out: Callable[[str, int, str], bool], warn: Callable[[str], None]
    ) -> None:
        self._leave_out = leave_out
        self._warn = warn
        self._answered_recipes: set[_AtServer] = set()
        self._worked = defaultdict[_AtServer, set[str]](set)

    def interpret(
        self, item: Item, prepared: Prepared, verdict: Answer | Failure, reply: Reply, server: str
    ) -> Answer | Failure:
        """The verdict, or, if it is about a parameter, what that means."""
        recipe = (server, item.recipe_id)
        if isinstance(verdict, Answer):
            if not prepared.input.params:
                self._answered_recipes.add(recipe)
            worked = self._worked[recipe]
            if not prepared.added <= worked:
                worked |= prepared.added & prepared.body.keys()
            return verdict
        if verdict.reason is not Reason.REJECTED or verdict.halt or reply.status not in _STATUSES:
            return verdict
        rejected = rejected_parameter(reply.body, prepared.body)
        if self._wants_stream(rejected, prepared, reply):
            return self._only_streams(recipe, prepared, verdict)
        if rejected is None:
            return verdict
        place = _PLACES.get(rejected.name) or prepared.renderer.place_of(
            rejected.name, prepared.input, item.sample
        )
        named = replace(verdict, message=f"the server rejects {place}: {verdict.message}")
        if rejected.name in prepared.added:
            if rejected.name in self._worked[recipe]:
                return named  # the server takes it: it is something about this item
            if self._leave_out(*recipe, rejected.name):
                self._warn(f"{as_sentence(named.message)} It is left out from now on.")
            return replace(named, trouble=Trouble.PARAMETER_LEFT_OUT)
        if rejected.unsupported and self._affects_every_item(recipe, prepared, rejected.name):
            halt = f"the server does not take {place}, which is sent with every item."
            return replace(verdict, halt=f"{halt} {_AGAIN.get(rejected.name, _ANEW)}")
        return named

    def _wants_stream(self, rejected: Rejection | None, prepared: Prepared, reply: Reply) -> bool:
        """Whether a request that asked for no stream is refused for that: in words, or by its
        name."""
        if prepared.body.get("stream") is True:
            return False
        named = rejected is not None and rejected.name == "stream" and not rejected.unsupported
        return named or wants_stream(reply.body)

    def _only_streams(self, recipe: _AtServer, prepared: Prepared, verdict: Failure) -> Failure:
        if prepared.input.params or not self._affects_every_item(recipe, prepared, "stream"):
            return replace(verdict, message=f"{verdict.message} (see model.stream)")
        return replace(verdict, halt="the server answers only as a stream. Set model.stream: true.")

    def _affects_every_item(self, recipe: _AtServer, prepared: Prepared, name: str) -> bool:
        """Whether the server would reject it for all items of the recipe. Not when this one asks
        for it, or for another model, itself; when the recipe has had an answer; or when it is one
        of `retry --set`, which would be stuck: only failed items can be asked otherwise."""
        renderer = prepared.renderer
        if renderer.is_own(prepared.input, name) or renderer.is_own(prepared.input, "model"):
            return False
        return prepared.shared_recipe and recipe not in self._answered_recipes

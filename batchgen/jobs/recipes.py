"""The recipes of a database: what each asks, and who asks by it."""

from msgspec import Struct

from batchgen.items import Recipe
from batchgen.store import Experiment, ReadStore


class RecipeUser(Struct, frozen=True):
    """An experiment, or a step, whose new items are asked with a recipe: in this variant of it, and
    read by this parser."""

    experiment: Experiment
    variant: int
    parser: str


class RecipeUse(Struct, frozen=True):
    """`users` may be none: items keep the recipe that they were asked with, when another one has
    taken its place, and retry with other parameters makes some."""

    id: int
    created_at: int
    recipe: Recipe
    users: tuple[RecipeUser, ...]


async def recipes_of(store: ReadStore) -> list[RecipeUse]:
    """The newest thousand, the newest first."""
    experiments = {one.id: one for one in await store.experiments()}
    users: dict[int, list[RecipeUser]] = {}
    for variant in await store.variants():
        experiment = experiments[variant.experiment_id]
        parser = (await store.parsers.present(experiment.id)).version.spec
        users.setdefault(variant.recipe_id, []).append(
            RecipeUser(experiment, variant.number, parser)
        )
    return [
        RecipeUse(one.id, one.created_at, Recipe.from_json(one.body), tuple(users.get(one.id, ())))
        for one in await store.newest_recipes()
    ]

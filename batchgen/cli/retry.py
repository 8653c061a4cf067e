"""retry: ask again for items that failed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from batchgen.cli.group import epilog
from batchgen.cli.lookup import items_called, open_experiments
from batchgen.cli.options import json_option, only_experiment_option, reason_choice
from batchgen.cli.session import Session, counted, run_async
from batchgen.config import model_setting
from batchgen.errors import UsageError
from batchgen.items import Recipe
from batchgen.store import EndedItem, Store


@click.command(epilog=epilog(
    "batchgen retry",
    "batchgen retry --reason timeout --reason server",
    "batchgen retry --message overloaded --dry-run",
    "batchgen retry --reason truncated --set max_tokens=8192",
    "batchgen retry --id 17 --done --set model=gpt-4.1",
))  # fmt: skip
@click.option("--reason", "reasons", type=reason_choice, multiple=True)
@click.option("--message", metavar="TEXT", help="Those with TEXT in their message, in any case.")
@click.option("--id", "item_ids", metavar="ID", multiple=True)
@click.option(
    "--done", "done_too", is_flag=True,
    help="With --id: also an item that is done. It is asked again; its old answer stays in the "
         "database (batchgen show), but is not exported any more.",
)  # fmt: skip
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True,
    help="Ask these items with another parameter or model, as in the config's model section; "
         "null: without it. Items whose own `params` say otherwise are left.",
)  # fmt: skip
@only_experiment_option
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@json_option
@click.pass_obj
def retry(
    session: Session, reasons: tuple[str, ...], message: str | None, item_ids: tuple[str, ...],
    done_too: bool, settings: tuple[str, ...], experiment: str | None, dry_run: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Put failed items back to pending, to ask again.

    They get all their tries back; what came of the old ones is kept. Without options, all failed
    ones. `batchgen work` then asks for them again.

    With --set they get a recipe of their own and stay the same items: enqueueing their pool again
    adds nothing, and asks as the config says only for what is new.
    """
    if done_too and not item_ids:
        raise click.UsageError("--done needs --id: a done item is asked again only by its name")
    if done_too and (reasons or message is not None):
        raise click.UsageError("--done goes with --id alone: a done item has no reason or message")
    which = _Choice(reasons, message, done_too, _settings(settings), dry_run)
    config = session.config()

    async def job() -> int:
        async with open_experiments(config, experiment) as (store, chosen):
            if item_ids:
                only = chosen[0].id if experiment else None
                n = await _retry_ids(store, item_ids, only, which)
            else:
                n = sum([await _retry_all(store, e.id, which) for e in chosen])
        if which.left:
            session.warn(f"not retried: {counted(which.left, 'item')} with params of their own, "
                         f"which win over --set {' '.join(settings)}")  # fmt: skip
        if as_json:
            click.echo(json.dumps({"retried": n, "dry_run": dry_run}))
        else:
            went = "would go" if dry_run else "went"
            items = counted(n, "item" if done_too else "failed item")
            click.echo(f"{items} {went} back to pending.")
        return 0

    return run_async(job())


@dataclass(slots=True)
class _Choice:
    """Which items to retry, and how. `left` counts those that `settings` would not reach."""

    reasons: tuple[str, ...]
    message: str | None
    done_too: bool
    settings: Mapping[str, Any]
    dry_run: bool
    left: int = 0

    async def reopen(self, store: Store, items: Sequence[EndedItem]) -> int:
        if self.settings:
            numbers = [item.item_id for item in items]
            deaf = await store.items_with_own(numbers, list(self.settings))
            self.left += len(deaf)
            items = [item for item in items if item.item_id not in deaf]
        if self.dry_run:
            return len(items)
        return await store.reopen(items, _recipe_change(self.settings))


def _settings(given: tuple[str, ...]) -> Mapping[str, Any]:
    return dict(map(model_setting, given))


def _recipe_change(given: Mapping[str, Any]) -> Callable[[Recipe], Recipe] | None:
    if not given:
        return None

    def change(recipe: Recipe) -> Recipe:
        values = {"model": recipe.model, **recipe.params, **given}
        model = values.pop("model")
        params = {name: value for name, value in values.items() if value is not None}
        return replace(recipe, model=model, params=params)

    return change


async def _retry_all(store: Store, experiment_id: int, which: _Choice) -> int:
    n = 0
    for reason in dict.fromkeys(which.reasons) or (None,):
        after = 0
        while page := await store.failed_page(experiment_id, reason, which.message, after):
            after = page[-1].item_id
            n += await which.reopen(store, page)
    return n


async def _retry_ids(
    store: Store, item_ids: tuple[str, ...], experiment_id: int | None, which: _Choice
) -> int:
    chosen: dict[int, EndedItem] = {}
    for given in item_ids:
        numbers = await items_called(store, given, experiment_id)
        ended = [one for number in numbers if (one := await store.ended_item(number))]
        open_to_it = [one for one in ended if one.reason or which.done_too]
        if not ended:
            raise UsageError(f"item {given} has not ended yet, so there is nothing to retry.")
        if not open_to_it:
            raise UsageError(f"item {given} is done; say --done to ask for it again.")
        for one in open_to_it:
            if not which.reasons or one.reason in which.reasons:
                chosen[one.item_id] = one
    said = (which.message or "").casefold()
    return await which.reopen(
        store, [one for one in chosen.values() if said in (one.error or "").casefold()]
    )

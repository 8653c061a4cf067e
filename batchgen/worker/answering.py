"""Which rows each server of a worker answers, and which ones functions of the user's end: where
experiments have steps."""

from collections.abc import Sequence

from msgspec import Struct

from batchgen.errors import ConfigError
from batchgen.store import Experiment, Store
from batchgen.worker.spec import WorkSpec


class Answering(Struct, frozen=True):
    """`servers`: the experiments that each answers, in their order; None: all that no other one
    names, and whose rows no function ends, as those of `code`."""

    servers: tuple[tuple[int, ...] | None, ...]
    code: tuple[int, ...] = ()

    @property
    def runs_code(self) -> bool:
        return bool(self.code)


async def answering(store: Store, spec: WorkSpec) -> Answering:
    """As the experiments are now. Where a server is for some steps alone, no other one answers rows
    of experiments that come later. Raises ConfigError when rows wait that no server is for."""
    known = [one for one in await store.experiments() if _is_in_scope(one, spec)]
    are_for_all = bool(spec.servers) and not any(server.steps for server in spec.servers)
    code = await _code(store, known)
    if are_for_all:
        return Answering((None,) * len(spec.servers), code)
    asked = [one for one in _in_order(known, spec) if one.id not in code]
    named = {step for server in spec.servers for step in server.steps}
    servers = tuple(
        tuple(
            one.id
            for one in asked
            if one.step in server.steps or (server.answers_rest and one.step not in named)
        )
        for server in spec.servers
    )
    await _check(store, [one for one in asked if not any(one.id in ids for ids in servers)])
    return Answering(servers, code)


async def _check(store: Store, unanswered: Sequence[Experiment]) -> None:
    """Rows that wait for nobody would be waited for."""
    for one in unanswered:
        name = f"{one.name}/{one.step}" if one.step and one.first_id is None else one.name
        if rows := (await store.counts([one.id])).open:
            raise ConfigError(
                f"{name}: no server answers its {rows:,} open rows: each step of the config has "
                "servers of its own, or makes no call, and none is this one. Work on it with the "
                "config that it was enqueued with."
            )


def _is_in_scope(experiment: Experiment, spec: WorkSpec) -> bool:
    return spec.experiments is None or experiment.id in spec.experiments


def _in_order(experiments: Sequence[Experiment], spec: WorkSpec) -> list[Experiment]:
    """Of claiming: as the spec has them or, of all, the later steps first."""
    if spec.experiments is None:
        return sorted(experiments, key=lambda one: (-one.number, one.id))
    places = {id_: place for place, id_ in enumerate(spec.experiments)}
    return sorted(experiments, key=lambda one: places[one.id])


async def _code(store: Store, experiments: Sequence[Experiment]) -> tuple[int, ...]:
    """Those of them that run code, the later steps first."""
    found = []
    for first_id in dict.fromkeys(one.first_id or one.id for one in experiments if one.step):
        chain = await store.chain_of(first_id)
        found += [step for step in chain.steps if step.runs_code] if chain else []
    known = {one.id for one in experiments}
    found.sort(key=lambda step: -step.number)
    return tuple(step.experiment_id for step in found if step.experiment_id in known)

"""What a study does next: one pure function from its records to a decision.

`decide` says it of all the records at once. `Board` is the same as a fold: records are put one by
one, in the order the store wrote each evaluation's, and a decision costs the same at any length of
the study. Nothing else is remembered, so a study that was killed goes on as if it had not been.

The main phase is the first run of every trial, up through the rungs; repeats are further seeds, at
the top rung. Each has its part of the budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from nas.search.decisions import (
    Counts,
    Decision,
    Done,
    Plan,
    Promote,
    Repeat,
    Start,
    TakeUp,
    Wait,
)
from nas.search.evidence import Evidence, Runs
from nas.search.repeats import BegunTrial, Queue
from nas.search.rungs import Rung, Standing, rank, rung_flops, settled
from nas.search.yardstick import Yardstick
from nas.store.records import EvaluationRecord
from search_space.contract import Status

UNITS = 1024  # of a FLOP: sums of whole numbers do not depend on their order
NONE_HELD: frozenset[int] = frozenset()


class Board:
    """The records of one study, summed up for the next decision."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._top = len(plan.levels) - 1
        costs = rung_flops(plan.levels, plan.decay)  # and at most a step more, where one goes on
        self._costs = (_units(costs[0]), *(_units(cost + plan.step) for cost in costs[1:]))
        self._path = sum(self._costs)
        self._cheapest = min((*self._costs[1:], self._path))  # of what the main phase may do
        self._repeat_cost = _units(plan.levels[-1])
        # What was worked out for so many designs must pay for the last of them: each cost is off by
        # the rounding to units, and the repeats' part by a product's.
        rounding = plan.trials * len(plan.levels) + (_units(plan.flops) >> 48)
        self._whole = _units(plan.flops) + rounding
        self._repeat_part = _units(plan.flops * plan.repeat_share)
        self._main_part = self._whole - self._repeat_part
        self._yardstick = Yardstick(plan)

        self._trials: dict[int, BegunTrial] = {}
        self._early: dict[int, dict[int, EvaluationRecord]] = {}  # by a trial not yet put
        self._open: dict[int, EvaluationRecord] = {}
        self._final: dict[int, int] = {}  # units by evaluation
        self._open_main = [0] * len(plan.levels)  # first runs, by rung

        self._main = self._repeats = self._charged = 0  # units
        self._promised = 0  # units that warm starts on their way to the top still need
        self._n_repeats = 0
        self._n_by_rung = {status: [0] * len(plan.levels) for status in Status}

        self._rungs = [Rung(plan.reduction, len(plan.objectives)) for _ in range(self._top)]
        self._may_go_on: list[dict[int, EvaluationRecord]] = [{} for _ in range(self._top)]
        self._warm: list[set[int]] = [set() for _ in range(self._top)]
        # Of designs that are no warm starts: how many have ended at a rung, and gone on from it.
        self._ended, self._gone_on = [0] * self._top, [0] * self._top
        quality = "bits_per_byte"
        place = plan.objectives.index(quality) if quality in plan.objectives else None
        self._runs = Runs()
        self._queues = [
            Queue(Evidence(self._runs, self._values, len(plan.objectives), place))
            for _ in ("of those settled", "of all")
        ]

    # Records in.

    def put_trial(self, number: int, warm: bool, cost: Mapping[str, float]) -> None:
        """A design of the study. `cost`: its closed-form costs by name; of them, what is compared.

        Raises ValueError when it is put again and differs: a trial never changes.
        """
        kept = self._yardstick.costs(cost)
        known = self._trials.get(number)
        if known is not None:
            if (known.warm, known.cost) != (warm, kept):
                raise ValueError(f"trial {number} differs from how it was put before")
            return
        self._trials[number] = BegunTrial(warm, kept)
        for record in self._early.pop(number, {}).values():
            self.put(record)

    def put(self, record: EvaluationRecord) -> None:
        """An evaluation as it stands now, in place of what was put of it before.

        One whose trial is not there yet counts for nothing until that is put. Raises ValueError
        when one that has its result is put again with other FLOPs: a result never changes.
        """
        trial = self._trials.get(record.trial)
        if trial is None:
            self._early.setdefault(record.trial, {})[record.id] = record
            return
        if record.id in self._final:
            if self._final[record.id] != _committed(record) or not record.status.final:
                raise ValueError(f"evaluation {record.id} has ended and cannot change any more")
            return
        before = self._open.pop(record.id, None)
        if before is not None:
            self._book(before, -1)
        self._book(record, 1)
        trial.seeds = max(trial.seeds, record.seed - self.plan.seed + 1)
        if self._is_first(record):
            self._follow(trial, record)
        if record.status.final:
            self._final[record.id] = _committed(record)
            self._end(trial, record)
        else:
            self._open[record.id] = record

    def _book(self, record: EvaluationRecord, sign: int) -> None:
        """Add a record to the sums, or take it off them."""
        units = sign * _committed(record)
        self._charged += sign * _units(record.flops)
        self._n_by_rung[record.status][record.rung] += sign
        if self._is_first(record):
            self._main += units
            self._open_main[record.rung] += 0 if record.status.final else sign
        else:
            self._repeats += units
            self._n_repeats += sign

    def _follow(self, trial: BegunTrial, record: EvaluationRecord) -> None:
        """Note how far a first run came, and what a warm start needs from there on."""
        if record.rung < trial.reached:
            return
        if trial.reached >= 0 and record.rung > trial.reached:
            number = record.trial
            self._may_go_on[trial.reached].pop(number, None)
            self._warm[trial.reached].discard(number)
            self._gone_on[trial.reached] += not trial.warm
        trial.reached = record.rung
        goes_on = trial.warm and not _failed(record)
        promise = sum(self._costs[record.rung + 1 :]) if goes_on else 0
        self._promised += promise - trial.promise
        trial.promise = promise

    def _end(self, trial: BegunTrial, record: EvaluationRecord) -> None:
        """Let an evaluation that has its result count where it is compared."""
        when = (record.ended_at or record.created_at).timestamp()
        finished = record.status is Status.FINISHED
        if record.rung == self._top:
            if finished and record.bits_per_byte is not None:
                self._runs.add(
                    when, record.id, record.trial, record.bits_per_byte, record.active_flops
                )
        elif self._is_first(record):
            self._rungs[record.rung].add(when, record.id, record.trial, self._standing(record))
            self._ended[record.rung] += not trial.warm
            if finished and trial.reached == record.rung:
                self._may_go_on[record.rung][record.trial] = record
                if trial.warm:
                    self._warm[record.rung].add(record.trial)

    def _is_first(self, record: EvaluationRecord) -> bool:
        return record.seed == self.plan.seed

    # What was measured.

    def _standing(self, record: EvaluationRecord) -> Standing | None:
        return self._yardstick.standing(record, self._trials[record.trial].cost)

    def _values(self, number: int, bits: float, active: float | None) -> tuple[float, ...] | None:
        return self._yardstick.values(number, self._trials[number].cost, bits, active)

    # The decision.

    def decide(
        self, *, held: Set[int] = NONE_HELD, warm_left: int = 0, exhausted: bool = False
    ) -> Decision:
        """What to do next, when there is somebody to do it.

        held: ids of the evaluations that the caller works on.
        warm_left: warm starts it has not begun.
        exhausted: no new design can be proposed.
        """
        unheld = self._open.keys() - held
        if unheld:
            # Its FLOPs were granted when it was begun.
            return TakeUp(self._open[min(unheld)])
        room = len(self._trials) < self.plan.trials and self._main_pays(self._path)
        if room and warm_left > 0:
            return Start()
        begins = room and not exhausted
        promotion = self._promotion(begins)
        if promotion is not None:
            return promotion
        if begins:
            return Start()
        if (promotion := self._warm_promotion()) is not None:
            return promotion
        last = self._promotion(everything=True) or self._only_hope() or self._repeat()
        return last or (Wait() if self._open else Done())

    def _main_pays(self, units: int, promised: bool = False) -> bool:
        """Whether the main phase can pay; what is promised to warm starts is not left to others."""
        after = self._main + units + (0 if promised else self._promised)
        spent_on_both = after + self._repeats
        return after <= self._main_part and spent_on_both <= self._whole

    def _promotion(self, begins: bool = False, everything: bool = False) -> Promote | None:
        """The best run that may go on, from the highest rung down.

        begins: whether new designs can still be begun. While they can, no more than one in
        `reduction` goes on: ranks change with every result, and a run that was among the best for
        a moment would take the FLOPs of those that will be.
        everything: at rungs that nothing is on its way to end at, also count the last results,
        which a long rung is not ranked anew for.
        """
        for rung in reversed(range(self._top)):
            if everything and any(self._open_main[: rung + 1]):
                continue
            number = self._best(rung, everything)
            if number is None:
                continue
            warm = self._trials[number].warm  # its FLOPs are promised, and it is not among the few
            full = self._gone_on[rung] >= self._ended[rung] // self.plan.reduction
            if (warm or not (begins and full)) and self._main_pays(self._costs[rung + 1], warm):
                return self._promote(rung, number)
        return None

    def _warm_promotion(self) -> Promote | None:
        """A warm start that is not among the best goes on, too, once nothing better is to be done:
        it always reaches the top, and what the best find out first is worth more."""
        for rung in reversed(range(self._top)):
            if self._warm[rung] and self._main_pays(self._costs[rung + 1], promised=True):
                return self._promote(rung, min(self._warm[rung]))
        return None

    def _only_hope(self) -> Promote | None:
        """The best run that may go on, when all is over and nothing was measured at the top.

        Of fewer runs than `reduction` floor(n / reduction) is none, and what went on may have
        failed: such a study would have spent its FLOPs for nothing.
        """
        if self._open or self._runs.measured:
            return None
        for rung in reversed(range(self._top)):
            standings = {n: self._standing(record) for n, record in self._may_go_on[rung].items()}
            measured = {n: each for n, each in standings.items() if each is not None}
            if measured and self._main_pays(self._costs[rung + 1]):
                found = measured.values()
                best = rank(
                    [each.values for each in found],
                    [each.excess for each in found],
                    [each.bits_per_byte for each in found],
                    list(measured),
                    most=1,
                )
                return self._promote(rung, list(measured)[best[0]])
        return None

    def _best(self, rung: int, everything: bool) -> int | None:
        """The best trial of a rung that may go on and has not."""
        best = self._rungs[rung].best(everything)
        while best and self._trials[best[-1]].reached > rung:
            best.pop()  # for good: what went on never comes back
        return best[-1] if best else None

    def _promote(self, rung: int, number: int) -> Promote:
        return Promote(self._may_go_on[rung][number], rung + 1)

    def _repeat(self) -> Repeat | None:
        """The contender that has had the fewest seeds, once the main phase is over."""
        if self.plan.seeds < 2 or not self._repeats_pay():
            return None
        if any(self._open_main) and self._main_pays(self._cheapest):
            return None  # what runs now may still be promoted, or change the frontier
        n = len(self._runs.measured)
        number = self._queues[0].next(settled(n), self._trials, self.plan.seeds)
        if number is None and settled(n) < n:
            number = self._queues[1].next(n, self._trials, self.plan.seeds)
        if number is None:
            return None
        return Repeat(number, self.plan.seed + self._trials[number].seeds)

    def _repeats_pay(self) -> bool:
        after = self._repeats + self._repeat_cost
        return after <= self._repeat_part and after + self._main <= self._whole

    # For displays.

    def counts(self) -> Counts:
        """Evaluations by rung and FLOPs, as they stand."""
        final = [self._n_by_rung[status] for status in Status if status.final]
        return Counts(
            trials=len(self._trials),
            running=tuple(self._n_by_rung[Status.RUNNING]),
            stopped=tuple(self._n_by_rung[Status.STOPPED]),
            ended=tuple(map(sum, zip(*final, strict=True))),
            repeats=self._n_repeats,
            committed=(self._main + self._repeats) / UNITS,
            charged=self._charged / UNITS,
        )


def _failed(record: EvaluationRecord) -> bool:
    return record.status.final and record.status is not Status.FINISHED


def _units(flops: float) -> int:
    return round(flops * UNITS)


def _committed(record: EvaluationRecord) -> int:
    return _units(record.flops) + _units(record.reserved)

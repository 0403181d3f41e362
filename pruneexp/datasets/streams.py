"""Training batches of one or several datasets, each in an order of its own that (seed, step) decide."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from pruneexp.datasets.base import TARGET, Batch, Split
from pruneexp.datasets.order import steps_per_epoch, train_draws


@dataclass(frozen=True)
class Stream:
    """The training batches of a split. batch_size: over all processes. seed: of the order."""

    split: Split
    batch_size: int
    seed: int

    def batches(self, first_step: int, last_step: int, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """The batches of the steps first_step, ..., last_step - 1 for one process.

        Raises:
            ValueError: the batch does not divide by the number of processes, or an example cannot be read.
        """
        draws = train_draws(
            len(self.split),
            batch_size=self.batch_size,
            seed=self.seed,
            first_step=first_step,
            last_step=last_step,
            rank=rank,
            world_size=world_size,
        )
        return iter(self.split.serve(draws))

    @property
    def examples(self) -> int:
        """The examples of a batch: all there are where they are fewer than `batch_size`."""
        return min(self.batch_size, len(self.split))


@dataclass(frozen=True)
class Streams:
    """The batches of a target task and its auxiliary tasks.

    auxiliary: name -> stream. alternate: each step has a batch of one task, the target's first and then in turn,
    instead of a batch of each. An epoch is always one pass through the target's examples.
    """

    target: Stream
    auxiliary: Mapping[str, Stream]
    alternate: bool

    @property
    def steps_per_epoch(self) -> int:
        """Steps until the target's examples have been served once."""
        steps = steps_per_epoch(len(self.target.split), self.target.batch_size)
        return steps * (1 + len(self.auxiliary)) if self.alternate else steps

    @property
    def examples_per_step(self) -> float:
        """The examples of a step over all processes; the mean over the tasks where they alternate."""
        sizes = [stream.examples for stream in (self.target, *self.auxiliary.values())]
        return sum(sizes) / len(sizes) if self.alternate else sum(sizes)

    def check(self, *, world_size: int, accumulate: int) -> None:
        """Raises ValueError if a batch cannot be divided among processes and micro-batches."""
        self.target.batches(0, 0, world_size=world_size)
        for name, stream in self.auxiliary.items():
            try:
                stream.batches(0, 0, world_size=world_size)
            except ValueError as error:
                raise ValueError(f"auxiliary task {name}: {error}") from error
            if stream.examples // world_size < accumulate:
                raise ValueError(
                    f"training.accumulate={accumulate}: a process has {stream.examples // world_size} examples of the "
                    f"auxiliary task {name} in a step; accumulate less, or give it a larger batch_size"
                )

    def batches(
        self,
        first_step: int,
        last_step: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        tasks: Callable[[int], Collection[str] | None] = lambda step: None,
    ) -> Iterator[Batch]:
        """The batches of the steps first_step, ..., last_step - 1, counted from 0, for one process.

        tasks: the names of those that a step trains, by its number; None for all. A batch is of the first task in the
        step and names it under the key `task` where it is not the target's or there are no others; the key `auxiliary`
        holds one of each other task, by name. Each task goes on where it was when a step trained it last.

        Raises:
            ValueError: as `Stream.batches`.
        """
        streams = {TARGET: self.target, **self.auxiliary}
        if len(streams) == 1:
            yield from self.target.batches(first_step, last_step, rank=rank, world_size=world_size)
            return
        turns = [self._turn(step, tasks(step)) for step in range(last_step)]
        before, after = (Counter(name for turn in part for name in turn) for part in (turns[:first_step], turns))
        served = {
            name: stream.batches(before[name], after[name], rank=rank, world_size=world_size)
            for name, stream in streams.items()
        }
        for first, *others in islice(turns, first_step, None):
            batch = next(served[first])
            if others:
                batch = {**batch, "auxiliary": {name: next(served[name]) for name in others}}
            yield {**batch, "task": first} if first != TARGET or not others else batch

    def _turn(self, step: int, tasks: Collection[str] | None) -> tuple[str, ...]:
        """The tasks of a step, the target first if it is one of them."""
        names = [name for name in (TARGET, *self.auxiliary) if tasks is None or name in tasks]
        return (names[step % len(names)],) if self.alternate else tuple(names)


@dataclass(frozen=True)
class Calibration:
    """The batches of the first `steps` steps, the same on every process; they can be gone through more than once."""

    streams: Streams
    steps: int

    def __iter__(self) -> Iterator[Batch]:
        return self.streams.batches(0, self.steps)

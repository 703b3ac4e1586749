"""What does a run know of one search of its population?"""

from __future__ import annotations

from jaxdarts.runs.folder import RunFolder
from jaxdarts.runs.metrics import read_metrics
from jaxdarts.runs.population.rounds import epoch_in, last_round, round_of
from jaxdarts.runs.record import METRICS_FILE
from jaxdarts.runs.search.assemble import Search
from jaxdarts.runs.search.events import Event, stopped_at
from jaxdarts.runs.search.files import forget_epochs


class Member:
    """A search's functions, its folder, and what its method has decided."""

    def __init__(self, index: int, search: Search, folder: RunFolder) -> None:
        self.index, self.search, self.folder = index, search, folder
        self.events: list[Event] = []
        self.metrics_path = folder.path / METRICS_FILE

    @property
    def last_epoch(self) -> int:
        """The epoch whose genotype it returns, if nothing more happens."""
        stopped = stopped_at(self.events)
        return self.search.config.epochs - 1 if stopped is None else stopped

    @property
    def last_round(self) -> int:
        """The round in which it takes its last epoch, if nothing more happens."""
        return last_round(self.events, self.search.config.epochs)

    def takes_part(self, number: int) -> bool:
        """Whether it takes an epoch in a round: else it has ended, and is measured no more."""
        return number <= self.last_round

    def epoch_in(self, number: int) -> int:
        """Its own epoch in a round; if it has ended, its last one."""
        return epoch_in(self.events, min(number, self.last_round))

    def round_of(self, epoch: int) -> int:
        """The newest round at whose end it stood at the end of one of its own epochs."""
        return round_of(self.events, epoch)

    def rounds_to_keep(self, number: int) -> list[int]:
        """The rounds whose states it may need when round `number` has ended: for later verdicts, or its end."""
        epochs = [self.last_epoch]
        if number < self.last_round:
            epochs = list(self.search.method.returnable(read_metrics(self.metrics_path)[: self.epoch_in(number) + 1]))
        return [self.round_of(epoch) for epoch in epochs]

    def return_files(self, rounds: int) -> None:
        """Brings its files to what is known after so many rounds, and to its events."""
        forget_epochs(self.folder, self.epoch_in(rounds - 1) + 1, self.events)

"""What TPE looks at of a long study: its best trials and its latest."""

import copy
import math
from collections.abc import Container
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

MAX_SEEN = 500
"""As many trials are seen as they are; beyond, half of them is forgotten, again and again."""
NUM_BEST = 25
"""As many as TPE takes for good ones at most (Optuna 5.0), so that those are always the best of all."""
SCORED = (TrialState.COMPLETE, TrialState.PRUNED)


class RecentStudy(optuna.Study):
    """A study that shows at most `MAX_SEEN` trials of those in its storage: TPE goes through all that it sees at every suggestion.

    It gives old trials less and less weight; up to `MAX_SEEN` trials it sees the same as ever. Only trials that ended with a score are
    shown: it makes nothing of others. Which trials are forgotten depends on the order in which they ended.

    Attributes:
        num_scored: trials that ended with a score, also those that are not shown.
    """

    def __init__(self, study: optuna.Study) -> None:
        """A view of the study, of which nobody else may tell the end of a trial meanwhile."""
        super().__init__(study.study_name, study._storage)
        self.num_scored = 0
        self._seen: list[FrozenTrial] = []
        """By number."""
        for trial in super()._get_trials(deepcopy=False, states=SCORED):
            self._see(trial)

    def tell(self, *args: Any, **options: Any) -> FrozenTrial:
        trial = super().tell(*args, **options)
        if trial.state in SCORED:
            self._see(trial)
        return trial

    def _see(self, trial: FrozenTrial) -> None:
        self.num_scored += 1
        self._seen.append(trial)
        if len(self._seen) > MAX_SEEN:
            best = sorted(self._seen, key=self._rank)[:NUM_BEST]
            numbers = {trial.number for trial in best}
            latest = [trial for trial in self._seen if trial.number not in numbers]
            self._seen = best + latest[NUM_BEST - MAX_SEEN // 2 :]
        self._seen.sort(key=lambda trial: trial.number)

    def _rank(self, trial: FrozenTrial) -> tuple[bool, int, float]:
        """What sorts better trials first, as TPE does: complete ones by value, then pruned ones by the step they reached and its value."""
        sign = 1 if self.direction is StudyDirection.MINIMIZE else -1
        if trial.state is TrialState.COMPLETE:
            return False, 0, sign * trial.value
        step = max(trial.intermediate_values)
        value = sign * trial.intermediate_values[step]
        return True, -step, math.inf if math.isnan(value) else value

    def _get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False) -> list[FrozenTrial]:
        """What samplers ask for (Optuna 5.0)."""
        seen = [trial for trial in self._seen if states is None or trial.state in states]
        return copy.deepcopy(seen) if deepcopy else seen

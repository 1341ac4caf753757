"""Are the search's best trials really the best? Each is trained again with fresh seeds, and the best mean wins.

The best of many noisy scores is partly the luckiest, and retraining from a trial's own seed repeats its luck.
"""

import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence

from digit_search.config.settings import RunSettings
from digit_search.data.load import Digits
from digit_search.data.split import RowSplit
from digit_search.errors import TrialError
from digit_search.final_model.retrain import export_model, final_device, final_trainer, train_with_early_stopping
from digit_search.records import Confirmation, RetrainRecord, TrialRecord
from digit_search.run.checkpoints import LocalCheckpoints
from digit_search.run.events import EventLog
from digit_search.run.layout import RunFolder, delete_checkpoints
from digit_search.run.state import load_state
from digit_search.selection.ranking import ConfirmedScore, best_confirmation, confirmed_scores, ranked
from digit_search.selection.statistics import accuracy_text, tied
from digit_search.training.checkpoint import load_checkpoint
from digit_search.training.device import describe_device
from digit_search.training.model import load_weights, save_weights


def fresh_seed(seed: int, trial: int, repeat: int) -> int:
    """The seed of a trial's fresh training: from the run's seed, the trial's number and how many there were before."""
    return zlib.crc32(f"{seed}/{trial}/confirm/{repeat}".encode())


def confirm_best(settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, say: Callable[[str], None]) -> RetrainRecord:
    """Train the best trials of the folder's events again, as far as that is not done yet; hand over the weights of the best mean.

    Raises:
        TrialError: if each of the trials diverges with some seed.
    """
    history, rank_by, events = load_state(folder.events), settings.search.rank_by, EventLog(folder.events)
    candidates = {record.trial: record for record in ranked(history.trials, rank_by)[: settings.retrain.confirm]}
    known = {(record.trial, record.seed): record for record in history.confirmations}
    confirmations: list[Confirmation] = []
    for record in candidates.values():
        try:
            confirmations += _confirm_trial(settings, folder, digits, split, record, known, events, say)
        except TrialError as error:
            say(f"trial {record.trial} is out: with a fresh seed it diverges ({error})")
    if not confirmations:
        raise TrialError(f"none of the trials {', '.join(map(str, candidates))} can be confirmed: each diverges with a fresh seed")
    scores = confirmed_scores(confirmations, rank_by)
    _tell(scores, len(split.validation), say)
    winner = candidates[scores[0].trial]
    retrained = _export_chosen(settings, folder, digits, split, winner, best_confirmation(confirmations, winner.trial, rank_by))
    events.confirmed(winner.trial, at=time.time())
    events.retrained(retrained, at=time.time())
    # Last: until here a crash costs nothing but this choice.
    shutil.rmtree(folder.retraining, ignore_errors=True)
    return retrained


def _confirm_trial(
    settings: RunSettings,
    folder: RunFolder,
    digits: Digits,
    split: RowSplit,
    record: TrialRecord,
    known: Mapping[tuple[int, int], Confirmation],
    events: EventLog,
    say: Callable[[str], None],
) -> list[Confirmation]:
    """All fresh trainings of one trial; those whose record and weights are there already are not repeated."""
    done = []
    for repeat in range(settings.retrain.confirm_seeds):
        seed = fresh_seed(settings.seed, record.trial, repeat)
        if (record.trial, seed) not in known or not folder.confirmed_weights(record.trial, seed).exists():
            say(f"confirming trial {record.trial}: fresh seed {repeat + 1} of {settings.retrain.confirm_seeds}")
            done.append(_train_fresh(settings, folder, digits, split, record, seed))
            events.confirmation(done[-1], at=time.time())
        else:
            done.append(known[record.trial, seed])
        delete_checkpoints(folder.confirming(record.trial, seed))
    return done


def _train_fresh(settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, record: TrialRecord, seed: int) -> Confirmation:
    """Train a trial's parameters with a fresh seed and early stopping, and keep the weights; an interrupted training is gone on with."""
    started_at = time.monotonic()
    plan, checkpoints, retrain = final_device(settings, record), folder.confirming(record.trial, seed), settings.retrain
    trainer = final_trainer(settings, digits, split, plan, record.params, seed)
    best, curve = train_with_early_stopping(
        trainer, checkpoints, load_checkpoint(LocalCheckpoints(checkpoints)), (), retrain.max_epochs, retrain.patience
    )
    save_weights(trainer.model, folder.confirmed_weights(record.trial, seed))
    return Confirmation(
        trial=record.trial,
        seed=seed,
        epochs=tuple(curve),
        best_epoch=best.metrics.epoch,
        val_accuracy=best.metrics.scored_accuracy,
        val_loss=best.metrics.scored_loss,
        device=describe_device(plan.device),
        seconds=round(time.monotonic() - started_at, 3),
    )


def _tell(scores: Sequence[ConfirmedScore], num_validation: int, say: Callable[[str], None]) -> None:
    best = scores[0]
    for score in scores:
        each = ", ".join(f"{accuracy:.4f}" for accuracy in score.accuracies)
        say(f"trial {score.trial}: mean of {each}: validation accuracy {accuracy_text(score.mean_accuracy, num_validation)}")
    if level := [str(score.trial) for score in scores[1:] if tied(score.mean_accuracy, best.mean_accuracy, num_validation)]:
        say(f"trial {best.trial} is tied with trial{'s' if len(level) > 1 else ''} {', '.join(level)}: the difference is within the noise")


def _export_chosen(
    settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, winner: TrialRecord, chosen: Confirmation
) -> RetrainRecord:
    plan = final_device(settings, winner)
    model = load_weights(folder.confirmed_weights(chosen.trial, chosen.seed)).to(plan.device)
    return export_model(settings, folder, digits, split, plan, model, winner.params, chosen)

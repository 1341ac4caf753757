"""Are the search's best trials really the best? Each is trained again with fresh seeds, and the best mean wins.

The best of many noisy scores is partly the luckiest, and retraining from a trial's own seed repeats its luck.
"""

import shutil
import zlib
from collections.abc import Sequence

from digit_search.data.load import Digits
from digit_search.data.split import RowSplit
from digit_search.errors import TrialError
from digit_search.final_model.export import export_model
from digit_search.final_model.retrain import final_device, train_again
from digit_search.records import Confirmation, RetrainRecord, TrialRecord
from digit_search.run.active_run import ActiveRun, Say
from digit_search.run.checkpoints import LocalCheckpoints
from digit_search.run.events import Retrained, TrialConfirmed, WinnerConfirmed
from digit_search.run.layout import delete_checkpoints
from digit_search.selection.ranking import ConfirmedScore, best_confirmation, confirmed_scores, ranked
from digit_search.selection.statistics import accuracy_text, tied
from digit_search.training.checkpoint import load_checkpoint
from digit_search.training.model import load_weights, save_weights


def fresh_seed(seed: int, trial: int, repeat: int) -> int:
    """The seed of a trial's fresh training number `repeat`, counted from 0."""
    return zlib.crc32(f"{seed}/{trial}/confirm/{repeat}".encode())


def confirm_best(run: ActiveRun, digits: Digits, split: RowSplit) -> RetrainRecord:
    """Train the best trials again, as far as that is not done yet, and deliver the weights of the trial with the best mean.

    Raises:
        TrialError: if each of the trials diverges with some seed.
        StorageError: if the disk does not take a file.
    """
    settings = run.settings
    rank_by = settings.search.rank_by
    candidates = {record.trial: record for record in ranked(run.state.trials, rank_by)[: settings.retrain.confirm]}
    confirmations: list[Confirmation] = []
    for record in candidates.values():
        try:
            confirmations += _confirm_trial(run, digits, split, record)
        except TrialError as error:
            run.say(f"trial {record.trial} is out: it diverges with a fresh seed ({error})")
    if not confirmations:
        raise TrialError(f"none of the trials {', '.join(map(str, candidates))} can be confirmed: each diverges with a fresh seed")
    scores = confirmed_scores(confirmations, rank_by)
    _say_scores(scores, len(split.validation), run.say)
    winner = candidates[scores[0].trial]
    chosen = best_confirmation(confirmations, winner.trial, rank_by)
    plan = final_device(settings, winner)
    model = load_weights(run.folder.confirmed_weights(chosen.trial, chosen.seed)).to(plan.device)
    retrained = export_model(run, digits, split, plan, model, winner.params, chosen)
    run.record(WinnerConfirmed(trial=winner.trial))
    run.record(Retrained(record=retrained))
    # Last: until here, a crash costs nothing but this choice.
    shutil.rmtree(run.folder.retraining, ignore_errors=True)
    return retrained


def _confirm_trial(run: ActiveRun, digits: Digits, split: RowSplit, record: TrialRecord) -> list[Confirmation]:
    """All fresh trainings of one trial. Those whose record and weights exist already are not repeated."""
    known = {(confirmation.trial, confirmation.seed): confirmation for confirmation in run.state.confirmations}
    num_seeds = run.settings.retrain.confirm_seeds
    done = []
    for repeat in range(num_seeds):
        seed = fresh_seed(run.settings.seed, record.trial, repeat)
        training = known.get((record.trial, seed))
        if training is None or not run.folder.confirmed_weights(record.trial, seed).exists():
            run.say(f"confirming trial {record.trial}: fresh seed {repeat + 1} of {num_seeds}")
            training = _train_fresh(run, digits, split, record, seed)
            run.record(TrialConfirmed(record=training))
        done.append(training)
        delete_checkpoints(run.folder.confirming(record.trial, seed))
    return done


def _train_fresh(run: ActiveRun, digits: Digits, split: RowSplit, record: TrialRecord, seed: int) -> Confirmation:
    """Train a trial's parameters with a fresh seed and early stopping, and keep the weights. An interrupted training is continued."""
    checkpoints = run.folder.confirming(record.trial, seed)
    plan, state = final_device(run.settings, record), load_checkpoint(LocalCheckpoints(checkpoints))
    model, training = train_again(run, digits, split, plan, record, seed, checkpoints, state)
    save_weights(model, run.folder.confirmed_weights(record.trial, seed))
    return training


def _say_scores(scores: Sequence[ConfirmedScore], num_validation: int, say: Say) -> None:
    best = scores[0]
    for score in scores:
        each = ", ".join(f"{accuracy:.4f}" for accuracy in score.accuracies)
        say(f"trial {score.trial}: mean of {each}: validation accuracy {accuracy_text(score.mean_accuracy, num_validation)}")
    if level := [str(score.trial) for score in scores[1:] if tied(score.mean_accuracy, best.mean_accuracy, num_validation)]:
        say(f"trial {best.trial} is tied with trial{'s' if len(level) > 1 else ''} {', '.join(level)}: the difference is within the noise")

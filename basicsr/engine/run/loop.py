"""The training loop: iterations, log lines, checkpoints, validation, clean stop."""

from __future__ import annotations

import datetime
import sys
import time
from typing import Any

from torch.utils.data import DataLoader
from tqdm import tqdm

from basicsr.data.stream import TrainingStream
from basicsr.engine.run.identity import RunIdentity
from basicsr.engine.run.resume import sampler_state
from basicsr.engine.run.retention import BestKeeper
from basicsr.engine.run.signals import STOPPED, EvaluationStopped, RunStopped, StopSignals
from basicsr.utils.full_disk import tolerate_full_disk
from basicsr.utils.logger import AvgTimer, MessageLogger, get_root_logger
from basicsr.utils.options.sections import TrainOptions, ValOptions


class TrainingLoop:
    """Trains a recipe, from the start or from a state.

    Args:
        opt: The options.
        model: The recipe; when resuming, with its state restored.
        streams: The training data, as the recipe declares them; likewise.
        val_loaders: The validation sets.
        tb_logger: A TensorBoard writer, or None.
        best: Decides which weights are the best.
        identity: Which run it is, for its training states.
        signals: Decides when to stop.
    """

    def __init__(
        self,
        opt: dict,
        model: Any,
        *,
        streams: tuple[TrainingStream, ...],
        val_loaders: list[DataLoader],
        tb_logger: Any,
        best: BestKeeper,
        identity: RunIdentity,
        signals: StopSignals,
    ) -> None:
        self.opt, self.model, self.streams = opt, model, streams
        self.val_loaders, self.tb_logger = val_loaders, tb_logger
        self.best, self.identity, self.signals = best, identity, signals
        self.logger = get_root_logger()
        self.data_timer, self.iter_timer = AvgTimer(), AvgTimer()
        self.total_iters = int(opt["train"]["total_iter"])
        self.train_options, self.val_options = TrainOptions.of(opt["train"]), ValOptions.of(opt.get("val"))
        self.iter = 0
        self.saved_iter: int | None = None
        self.validated_iter: int | None = None

    @property
    def epoch(self) -> int:
        """The epoch of the run: that of the stream that the recipe declares first."""
        return self.streams[0].epoch

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from a training state, which the recipe and the streams have been restored from; to be called before
        :meth:`run`."""
        self.iter = state["iter"]
        # BasicSR's states do not say whether the validation of their iteration was still to come; it was.
        if not state.get("validation_due", True):
            self.validated_iter = self.iter

    def run(self) -> None:
        """Train to the end.

        Raises:
            RunStopped: After a signal, on all ranks, or when the result could not be written.
        """
        self.logger.info(f"Start training from epoch: {self.epoch}, iter: {self.iter}")
        start_time = time.time()
        self.message_logger = MessageLogger(self.opt, self.iter + 1, self.tb_logger)
        hidden = self.opt["rank"] != 0 or not sys.stderr.isatty()
        try:
            with tqdm(total=self.total_iters, initial=self.iter, unit="it", disable=hidden) as bar:
                if self.iter < self.total_iters and self._validation_due():
                    self.validate()  # the run ended before the validation of its last iteration did
                self.run_iterations(bar)
            duration = datetime.timedelta(seconds=int(time.time() - start_time))
            self.logger.info(f"End of training. Time consumed: {duration}")
            self.logger.info("Save the latest model.")
            complete = self.save(-1, -1)
            if self._validation_due():
                self.validate()
            if not complete:
                raise RunStopped(1)
        except EvaluationStopped:
            self.stop()

    def run_iterations(self, bar: tqdm) -> None:
        """Train to the last iteration."""
        model, frequencies = self.model, self.opt["logger"]
        self.data_timer.start()
        self.iter_timer.start()
        while self.iter < self.total_iters:
            batch = self.next_batch()
            self.data_timer.record()
            self.iter += 1
            model.update_learning_rate(self.iter, warmup_iter=self.train_options.warmup_iter)
            model.feed_data(batch)
            model.optimize_parameters(self.iter)
            self.iter_timer.record()
            bar.update()
            if self._every(frequencies["print_freq"]):
                self.log()
            if self._every(frequencies["save_checkpoint_freq"]):
                self.logger.info("Saving models and training states.")
                self.save(self.epoch, self.iter)
            if self._every(self.val_options.val_freq):
                self.validate()
            if self.signals.should_stop():
                self.stop()
            self.data_timer.start()
            self.iter_timer.start()

    def next_batch(self) -> Any:
        """The argument of ``feed_data``: the batch of the only stream, or the batch of each stream by name."""
        if len(self.streams) == 1:
            return self.streams[0].next()
        return {stream.name: stream.next() for stream in self.streams}

    def log(self) -> None:
        """Print the iteration's line."""
        values = {"epoch": self.epoch, "iter": self.iter, "lrs": self.model.get_current_learning_rate()}
        values |= {"time": self.iter_timer.get_avg_time(), "data_time": self.data_timer.get_avg_time()}
        self.message_logger({**values, **self.model.get_current_log()})

    def validate(self) -> None:
        """Measure the validation sets; keep the weights if they are the best.

        Raises:
            EvaluationStopped: On all ranks, when a signal came.
        """
        for loader in self.val_loaders:
            # Our validation survives a full disk by itself; a downstream recipe's may not.
            with tolerate_full_disk(f"what a validation of iteration {self.iter} gave"):
                self.model.validation(loader, self.iter, self.tb_logger, self.val_options.save_img)
        self.validated_iter = self.iter
        if self.best.improved(self.model.best_metric_results, self.iter):
            self.logger.info(f"The best {self.best.choice} so far: saving models as best.")
            self.save(-1, "best")

    def save(self, epoch: int, current_iter: int | str) -> bool:
        """Write a checkpoint, or (epoch −1) the networks alone.

        If the disk is full, an error is logged and the training goes on.

        Args:
            epoch: The epoch, or −1.
            current_iter: The iteration; −1 for networks called ``latest``, or another word to call them by.

        Returns:
            Whether everything was written; always true on ranks above 0, which write nothing.
        """
        model = self.model
        model.sampler_state, model.identity = sampler_state(self.streams), self.identity.state()
        model.validation_due = self._validation_due()
        model.save_errors.clear()
        model.save(epoch, current_iter)
        if model.save_errors:
            self.logger.error(
                f"{'A checkpoint' if epoch >= 0 else 'Networks'} could not be saved at iteration {self.iter}: "
                f"{'; '.join(model.save_errors)}. The earlier checkpoints are whole, and saving is tried again when "
                f"the next one is due."
            )
            return False
        if epoch >= 0:
            self.saved_iter = self.iter
        return True

    def stop(self) -> None:
        """Save, unless that has been done, and leave.

        Raises:
            RunStopped: Always.
        """
        if self.saved_iter != self.iter and not self.save(self.epoch, self.iter):
            raise RunStopped(1)
        self.logger.warning(
            f"Stopped by {self.signals.requested or 'a signal to another rank'} after iteration {self.iter}, which is "
            f"saved: --auto_resume continues from it."
        )
        raise RunStopped(STOPPED)

    def _every(self, frequency: int | None) -> bool:
        return bool(frequency) and self.iter % frequency == 0

    def _validation_due(self) -> bool:
        is_time = self._every(self.val_options.val_freq) or (
            bool(self.val_options.val_freq) and self.iter >= self.total_iters
        )
        return is_time and self.iter > 0 and self.validated_iter != self.iter

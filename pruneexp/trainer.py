"""The training loop. It knows no method, model or dataset by name."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pruneexp.auxiliary import Loaded
from pruneexp.datasets.base import TARGET, Batch, Split, Splits
from pruneexp.datasets.batches import channels_last, micro_batches
from pruneexp.datasets.seeds import AUXILIARY, mixed
from pruneexp.datasets.streams import Calibration, Stream, Streams
from pruneexp.display import Bar, bar
from pruneexp.ema import EMA
from pruneexp.evaluation import Evaluator
from pruneexp.failures import TrainingError, one_line
from pruneexp.masks import (
    apply_masks_,
    mask_gradients_,
    mask_optimizer_state_,
    stored_parameter,
)
from pruneexp.methods.base import Method, Setting
from pruneexp.optimizers import Recipe
from pruneexp.processes import average_gradients_, check_same_masks, on_any
from pruneexp.progress import Progress
from pruneexp.runs import Run
from pruneexp.schedules import Timeline
from pruneexp.signals import Interrupted, StopRequest
from pruneexp.stages import Stages
from pruneexp.tasks.base import Task
from pruneexp.training_settings import Settings

CALIBRATION_BATCHES = 8


class Trainer:
    """Trains a model under a pruning method and leaves it pruned, plain and unwrapped.

    `model` is the plain network; `trained` is the module around it that holds what the task adds, often the same.
    """

    def __init__(
        self,
        model: nn.Module,
        splits: Splits,
        *,
        task: Task,
        method: Method,
        recipe: Recipe,
        settings: Settings,
        accelerator: Accelerator,
        run: Run,
        auxiliary: Mapping[str, Loaded] | None = None,
    ) -> None:
        """auxiliary: the further tasks that `task` trains the model on, by name."""
        self.model = model.to(accelerator.device)
        self.trained = task.module(self.model).to(accelerator.device)
        self.wrapped: nn.Module | None = None  # while training
        self.splits = splits
        self.auxiliary = auxiliary or {}
        self.task = task
        self.method = method
        self.recipe = recipe
        self.settings = settings
        self.accelerator = accelerator
        self.run = run
        self.streams = self._streams()
        per_epoch = self.streams.steps_per_epoch
        self.timeline = Timeline(per_epoch, max(1, round(settings.epochs * per_epoch)))
        self.total_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.progress = Progress(accelerator.device)
        self.evaluator = Evaluator(
            self.model, self.trained, task, accelerator, settings.batch_size, settings.channels_last
        )

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self.progress.step

    def fit(self) -> dict[str, Tensor]:
        """Trains to the end, after `prepare`, and prunes for good. The final masks.

        Raises:
            TrainingError: the loss is not finite, an example cannot be read, or the processes disagree on the masks.
            Interrupted: a signal came; a checkpoint was saved.
        """
        self.progress.begin()
        bar_of_run = bar(
            self.run.config["choices"]["method"], self.timeline.total_steps, self.step, visible=self.run.is_main
        )
        with StopRequest() as stop, bar_of_run as shown, one_line(self):
            if self.step == 0 and self.settings.evaluate_first:
                self._evaluate(shown)
            for batch in self._batches():
                self._train_step(batch)
                shown.advance()
                if self._evaluation_is_due():
                    self._evaluate(shown)
                    self._save()
                elif time.monotonic() - self.progress.saved > 60 * self.settings.checkpoint_minutes:
                    self._save()
                if self._stop_agreed(stop) and self.step < self.timeline.total_steps:
                    self._save()
                    raise Interrupted(stop.received or 15, self.run.folder)
        return self._finish()

    def prepare(self) -> None:
        """Sets up method, optimizer and checkpoint, then the wrappers: anything later would miss parameters.

        Raises:
            ValueError: the method does not fit the model, its schedule this training, a batch cannot be divided, or the
                checkpoint is damaged.
        """
        self.streams.check(world_size=self.accelerator.num_processes, accumulate=self.settings.accumulate)
        if self.settings.channels_last:
            self.trained.to(memory_format=torch.channels_last)
        state = self.run.restore(self.accelerator.device)
        self.method.setup(self.model, self._setting())
        self.stages = Stages(self.method.stages(), self.timeline.total_steps)
        masked = (*self.method.weights, *self.method.companions)
        self.parameters = {name: stored_parameter(self.model, name) for name in masked}
        own_groups = self.method.param_groups()
        optimizer = self.recipe.build(self.trained, own_groups)
        known = {id(parameter) for parameter in self.trained.parameters()}
        self.own = [p for group in own_groups for p in group["params"] if id(p) not in known]
        self.ema = EMA(self.trained, self.settings.ema_decay) if self.settings.ema_decay is not None else None
        if state is not None:
            self.trained.load_state_dict(state["model"])
            self.method.load_state_dict(state["method"])
            optimizer.load_state_dict(state["optimizer"])
            if self.ema:
                self.ema.load_state_dict(state["ema"])
            self.progress.load_state_dict(state)
        self.run.start(device=str(self.accelerator.device), resumed_from=self.progress.resumed_from)
        if self.settings.compile:
            self.model.compile()
        self.wrapped, self.optimizer = self.accelerator.prepare(self.trained, optimizer)
        self.trained.train()

    def _streams(self) -> Streams:
        seed, size = self.settings.seed, self.settings.batch_size
        auxiliary = {
            name: Stream(one.splits.train, one.batch_size, mixed(AUXILIARY, seed, number))
            for number, (name, one) in enumerate(self.auxiliary.items())
        }
        return Streams(Stream(self.splits.train, size, seed), auxiliary, self.settings.alternate)

    def _setting(self) -> Setting:
        batches = Calibration(self.streams, min(CALIBRATION_BATCHES, self.timeline.total_steps))
        return Setting(task=self.task, batches=batches, timeline=self.timeline, seed=self.settings.seed)

    def _batches(self) -> Iterator[Batch]:
        batches = self.streams.batches(
            self.step,
            self.timeline.total_steps,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            tasks=lambda step: self.stages.of(step).tasks,
        )
        for batch in batches:
            yield channels_last(batch) if self.settings.channels_last else batch

    def _train_step(self, batch: Batch) -> None:
        # Reseeding makes dropout a function of (seed, step, process), so that nothing random is to be saved.
        torch.manual_seed(((self.settings.seed * 1_000_003 + self.step) << 12) + self.accelerator.process_index)
        if self.method.before_step(self.step):
            self._masks_changed()
        if self.stages.starts(self.step):
            self._start_afresh()
        self.recipe.set_rate_(
            self.optimizer, *self.stages.place(self.step), peak=self.stages.of(self.step).learning_rate
        )
        loss = self._backward(batch)
        average_gradients_(self.accelerator, self.own)
        if self.method.on_grads(self.step):
            self._masks_changed()
        mask_gradients_(self.parameters, self.method.masks)
        if self.recipe.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        apply_masks_(self.parameters, self.method.masks)
        if self.ema:
            self.ema.update()
        self.progress.stepped(loss)
        if self.accelerator.device.type == "cpu":
            self._check_loss()

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of the mean loss of the batch, micro-batch by micro-batch; that loss, detached."""
        parts = list(micro_batches(batch, self.settings.accumulate))
        rows = len(batch["labels"])
        total = torch.zeros((), device=self.accelerator.device)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                loss = self.task.loss(self.wrapped, part) * (len(part["labels"]) / rows)
                if last:
                    loss = loss + self.method.penalty()
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _masks_changed(self) -> None:
        """Makes optimizer and weights obey new masks, and makes sure that all processes have the same."""
        mask_optimizer_state_(self.optimizer, self.parameters, self.method.masks)
        apply_masks_(self.parameters, self.method.masks)
        check_same_masks(self.accelerator, self.method.masks, self.step)

    def _start_afresh(self) -> None:
        """Makes optimizer and averages forget the stage before."""
        self.optimizer.state.clear()
        if self.ema:
            self.ema.restart()

    def _check_loss(self) -> None:
        if not math.isfinite(self.progress.loss_sum.item()):
            saved = self.run.folder / "checkpoint.pt"
            kept = f"the last good checkpoint is {saved}" if saved.is_file() else "no checkpoint was saved before"
            raise TrainingError(
                f"the loss is not finite at step {self.step} of {self.timeline.total_steps}; {kept}; "
                "try a smaller optimizer.learning_rate, optimizer.clip_norm=1 or precision=fp32"
            )

    def _evaluation_is_due(self) -> bool:
        every = max(1, round(self.settings.evaluate_every * self.timeline.steps_per_epoch))
        return self.step % every == 0 or self.step == self.timeline.total_steps

    def _evaluate(self, shown: Bar) -> None:
        """Validates, logs a line, and remembers the best."""
        self._check_loss()
        seconds = time.monotonic() - self.progress.evaluated
        with self.ema.applied() if self.ema else nullcontext():
            validation = self.evaluate(self.splits.validation)
            row = self._row(validation, seconds)
            hard = validation  # what counts: a soft method's model is worth what its hard masks leave
            if self.method.soft and self.method.sparsity() > 0:
                # Compiling the hard forward pass as well would cost more than it saves.
                with self.method.hardened(), torch.compiler.set_stance("force_eager"):
                    hard = self.evaluate(self.splits.validation)
                row |= {f"validation_hard/{name}": value for name, value in hard.items()}
        self.method.on_evaluation(self.step, hard)
        headline = hard[self.task.headline]
        self.progress.validated(headline, sparsity=row["sparsity/prunable"])
        self.run.log(row)
        shown.report(f"sparsity {row['sparsity/prunable']:.3f}  {self.task.headline} {headline:.4f}")
        self.progress.evaluated = time.monotonic()

    def _row(self, validation: dict[str, float], seconds: float) -> dict[str, Any]:
        prunable = sum(parameter.numel() for parameter in self.method.weights.values())
        sparsity = self.method.sparsity()
        row = {
            "step": self.step,
            "epoch": self.step / self.timeline.steps_per_epoch,
            "sparsity/prunable": sparsity,
            "sparsity/total": sparsity * prunable / self.total_parameters,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        if self.progress.loss_steps:
            row["train/loss"] = self.progress.loss_sum.item() / self.progress.loss_steps
            row["examples_per_second"] = self.progress.loss_steps * self.streams.examples_per_step / max(seconds, 1e-9)
        row |= {f"validation/{name}": value for name, value in validation.items()}
        for task, one in self.auxiliary.items():
            metrics = self.evaluate(one.splits.validation, task)
            row |= {f"validation_{task}/{name}": value for name, value in metrics.items()}
        return row | self.method.metrics()

    def evaluate(self, split: Split, task: str = TARGET) -> dict[str, float]:
        """The metrics of a task, by name, on a split of its data, the same on every process."""
        # Mixed precision acts on the forward of what was wrapped; where that is around the model, not on the model's.
        around = self.wrapped is not None and self.trained is not self.model
        with self.accelerator.autocast() if around else nullcontext(), one_line(self):
            return self.evaluator(split, task)

    def _stop_agreed(self, stop: StopRequest) -> bool:
        """Whether to stop now; several processes ask each other now and then, since a signal reaches them apart."""
        if self.accelerator.num_processes == 1:
            return stop.received is not None
        return self.step % 10 == 0 and on_any(self.accelerator, stop.received is not None)

    def _save(self) -> None:
        self._check_loss()
        self.run.save(
            {
                **self.progress.state_dict(),
                "model": self.trained.state_dict(),
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.state_dict() if self.ema else {},
            }
        )
        self.progress.saved = time.monotonic()

    def _finish(self) -> dict[str, Tensor]:
        if self.ema:
            self.ema.copy_to_model_()
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False, keep_torch_compile=False)
        self.wrapped = None
        self.model._compiled_call_impl = None  # what `compile()` set: nothing is left that would repay compiling again
        masks = self.method.finalize()
        apply_masks_(dict(self.model.named_parameters()), masks)
        return {name: mask for name, mask in masks.items() if name not in self.method.companions}

"""The ids of all checks, and their parts in a report. docs/reference/checks.md describes each."""

CHECKS = frozenset((
    # Read without training (net/settings.py)
    "optimizer_params", "frozen_params", "optimizer_settings", "weight_decay", "lr_zero",
    "layers", "batchnorm", "dropout", "weights", "schedule",
    # Data (data/)
    "input_values", "input_finite", "input_scale", "input_blank", "input_distinct",
    "input_statistics", "normalisation", "channels", "labels", "label_range", "label_classes",
    "class_balance", "label_shares", "label_signal", "augmentation", "label_map", "label_noise",
    "train_val_agree", "turned", "leakage", "preprocessing", "val_random", "loader",
    "loader_coverage", "loader_order", "loader_pairs", "val_loader", "batch_size", "workers",
    # The net as it starts (net/outputs.py)
    "output_width", "outputs", "sample_independence", "input_gradient", "registered",
    # The loss and the step, with logits that the battery chooses (loss.py, step/)
    "step_on_logits", "loss_contract", "loss_gradient", "loss_confident", "loss_rows",
    "label_smoothing", "temperature", "step_loss_contract", "step_loss_gradient",
    "step_loss_confident", "step_loss_rows", "step_loss_fn", "step_model", "step_backward",
    "step_inputs", "step_logits", "step_targets", "gradient_scale", "reported_loss",
    # Real steps, recorded (step/real_steps.py)
    "steps", "finite", "grad_bookkeeping", "accumulate", "grad_clip", "gradient_flow",
    "update_ratio", "train_mode", "loss_detached", "graphs", "input_dependence",
    # Learning some samples by heart (overfit.py)
    "start_loss", "overfit_batch", "fit_subset", "lr_range",
    # Evaluation and checkpoint (afterwards/)
    "evaluation", "eval_mode", "eval_side_effects", "eval_determinism", "eval_metric",
    "eval_loss", "mode_after_eval", "eval_loader", "eval_follows", "eval_statistics",
    "average_speed", "resume", "resume_schedule",
    # The set-up itself, where a part of it stops (battery.py)
    "factory", "runs_factory", "runs_train_data", "runs_val_data", "runs_train_loader",
    "runs_val_loader", "runs_model", "runs_train_step", "runs_evaluate", "runs_save", "runs_load",
))  # fmt: skip
# Checks that see that something is wrong but not what: behind a fail they are its consequence.
SYMPTOMS = frozenset((
    "overfit_batch", "fit_subset", "start_loss", "input_dependence", "update_ratio", "lr_range",
    "finite", "gradient_flow", "label_signal", "augmentation", "reported_loss", "input_scale",
))  # fmt: skip
# Checks that see why a part of the set-up stops.
REASONS = frozenset(("output_width", "label_range", "input_finite"))
# Checks whose warnings may explain why a net does not learn.
EXPLAINS = frozenset((
    "weights", "loss_contract", "loss_confident", "temperature", "grad_clip", "weight_decay",
    "optimizer_settings", "dropout", "outputs", "gradient_scale", "step_logits", "update_ratio",
    "schedule", "label_noise",
))  # fmt: skip

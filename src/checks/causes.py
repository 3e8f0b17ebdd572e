"""The vocabulary of causes: what each means and where to look first. docs/checks.md lists them."""

# cause: (what is wrong, where to look)
CAUSES: dict[str, tuple[str, str]] = {
    # The set-up itself
    "code_error": ("the code stops with an error of its own", "the last line of the traceback"),
    "shape_mismatch": ("sizes of tensors do not fit together", "model: input size, widths"),
    "dtype_mismatch": ("a tensor has the wrong type", "dataset: types of inputs and labels"),
    "out_of_memory": ("memory does not do", "batch size, size of pictures"),
    "interface": ("a part of the set-up has not the agreed form", "the factory of the set-up"),
    # Data
    "input_not_finite": ("inputs hold NaN or infinity", "dataset, normalisation (division by 0)"),
    "input_not_normalised": ("inputs are raw, not normalised", "transform: scaling, mean, std"),
    "normalised_twice": ("inputs are normalised twice", "transform: dataset and step"),
    "normalised_with_other_statistics": (
        "inputs are normalised with other numbers than declared", "transform: mean, std"),
    "channels_reversed": ("colours are in reverse order (BGR)", "decoding of pictures"),
    "train_val_preprocessing_differ": (
        "training and validation pictures are prepared differently", "transforms of both"),
    "preprocessing_differs_from_pretrained": (
        "pictures are prepared differently than those the weights were trained on",
        "prepare.* in params.yaml, mean and std"),
    "augmentation_destroys_label": (
        "augmentation leaves nothing of what the label says", "strength of the augmentation"),
    "blank_images": ("pictures are empty", "decoding, cropping, erasing"),
    "duplicates": ("the data set gives the same picture over and over", "dataset: its index"),
    "labels_out_of_range": ("labels lie outside 0..K-1", "dataset: class indices, num_classes"),
    "class_missing": ("classes never occur", "split, filter of the data set"),
    "class_imbalance": ("some classes are very rare", "class weights, balanced sampling"),
    "train_val_distribution_differs": ("the splits have other shares of classes", "the split"),
    "labels_shuffled": ("labels do not belong to their pictures", "how pictures meet labels"),
    "label_map_differs": ("the splits number the classes differently", "class-to-index maps"),
    "label_noise": ("a part of the labels is wrong", "the labels"),
    "label_conflict": ("the same picture has several labels", "the labels, duplicates"),
    "train_val_leakage": ("validation pictures are in the training set", "the split"),
    "loader_incomplete": ("the loader leaves a part of the data out", "sampler, Subset, drop_last"),
    "loader_repeats": ("the loader gives samples several times", "sampler with replacement"),
    "loader_not_shuffled": ("each epoch has the same order", "DataLoader(shuffle=True)"),
    "loader_sorted": ("batches come sorted by class", "DataLoader(shuffle=True), sampler"),
    "loader_misaligned": ("the loader pairs pictures with labels of others", "collate function"),
    "loader_of_other_data": ("the loader reads another data set", "how loaders are made"),
    "batch_too_small": ("batches are too small for BatchNorm", "batch size"),
    "worker_seeds_equal": ("workers draw the same random numbers", "worker_init_fn, generators"),
    # Loss
    "activation_before_loss": (
        "softmax, sigmoid or the like stands between the net and a loss that takes logits",
        "end of the model, step, loss"),
    "loss_expects_log_probabilities": (
        "the loss takes log-probabilities and is given logits", "NLLLoss: use CrossEntropyLoss"),
    "loss_reduction_sum": ("the loss is summed over the batch", "reduction of the loss"),
    "loss_sign": ("the loss has the wrong sign", "loss, step"),
    "loss_over_batch_axis": ("softmax runs over the batch", "dim of softmax"),
    "loss_ignores_labels": ("the loss does not depend on the labels", "loss, targets in the step"),
    "loss_label_shifted": ("the loss pulls towards another class", "targets in the loss"),
    "loss_bounded": ("confident mistakes get no gradient", "choice of the loss"),
    "loss_not_finite": ("the loss is NaN or infinite for usual logits", "log of 0 in the loss"),
    "loss_scale": ("the loss is scaled up or down", "weights and factors of the loss"),
    "temperature": ("logits are scaled before the loss", "temperature"),
    "label_smoothing_differs": ("smoothing is not what is declared", "label_smoothing"),
    "class_weight_zero": ("a class has no weight in the loss", "class weights"),
    "wrong_loss": ("the loss is not one for classification", "choice of the loss"),
    # Step
    "targets_changed_in_step": ("the step changes the labels", "step: targets"),
    "inputs_changed_in_step": ("the step pairs pictures with labels of others", "step: inputs"),
    "mixed_labels_differ": (
        "labels are mixed otherwise than their pictures", "step: mixup, cutmix"),
    "logits_changed_in_step": ("the step changes the logits before the loss", "step"),
    "step_ignores_part_of_batch": ("the step trains on a part of the batch", "step: slices"),
    "gradient_not_divided_by_accumulate": (
        "the gradient is summed over micro-batches, not averaged", "step: loss / accumulate"),
    "accumulate_differs": ("the optimizer steps at another interval than declared", "accumulate"),
    "backward_missing": ("no gradient is computed", "step: loss.backward(), detach, no_grad"),
    "zero_grad_missing": ("old gradients are never cleared", "step: optimizer.zero_grad()"),
    "zero_grad_before_step": ("gradients are cleared before they are used", "step: order of calls"),
    "zero_grad_every_micro_batch": (
        "gradients are cleared between micro-batches", "step: zero_grad only after step"),
    "step_before_backward": ("the optimizer steps before backward", "step: order of calls"),
    "optimizer_never_steps": ("the optimizer never steps", "step: optimizer.step()"),
    "gradient_sign_flipped": ("the optimizer climbs", "step, maximize"),
    "gradient_clipped_away": ("clipping leaves next to nothing", "clip_grad"),
    "gradient_changed": ("gradients are changed before the step", "step, hooks on parameters"),
    "model_in_eval_mode": ("the net trains in evaluation mode", "model.train()"),
    "graph_kept": ("the losses of earlier steps keep their graphs in memory", "step: loss.item()"),
    "model_not_used": ("the step trains another net", "step: setup.model"),
    "reported_loss_differs": ("the reported loss is not the trained one", "step: what it returns"),
    # Optimizer and schedule
    "parameter_not_in_optimizer": ("the optimizer lacks what learns", "parameter groups"),
    "parameter_not_registered": ("layers are not registered in the net", "nn.ModuleList"),
    "optimizer_of_other_model": ("the optimizer holds another net's parameters", "when it is made"),
    "parameter_frozen": ("parameters rest that are not declared frozen", "requires_grad"),
    "frozen_parameter_moves": ("parameters declared frozen are trained", "requires_grad"),
    "lr_too_high": ("the learning rate is too high", "lr"),
    "lr_too_low": ("the learning rate is too low", "lr"),
    "schedule_too_short": ("the schedule is at its end long before the training", "total steps"),
    "schedule_never_stepped": ("nobody steps the schedule", "step: scheduler.step()"),
    "schedule_unstable": ("the schedule goes up and down", "schedule: unit of its steps"),
    "warmup_too_long": ("warm-up takes most of the training", "warm-up"),
    "weight_decay_too_high": ("weight decay is very strong", "weight_decay"),
    "momentum_too_high": ("momentum averages over very many steps", "momentum, betas"),
    "optimizer_eps": ("eps swamps the gradient", "eps"),
    "batchnorm_momentum": ("BatchNorm's running statistics do not follow", "BatchNorm momentum"),
    # Model
    "num_classes": ("the net has another number of outputs than classes", "width of the head"),
    "samples_mixed": ("outputs depend on the other pictures of the batch", "view, permute, dim"),
    "input_ignored": ("outputs hardly depend on the picture", "forward of the model"),
    "channel_ignored": ("a channel or part of the picture is ignored", "forward of the model"),
    "gradient_blocked": ("no gradient reaches some layers", "detach, no_grad, dead layers"),
    "bad_initialisation": ("weights are too large, too small or equal", "initialisation"),
    "train_eval_differ": ("the net does different things in training and evaluation",
                          "BatchNorm, dropout, self.training"),
    "dropout_too_high": ("dropout leaves too little", "dropout"),
    "model_too_small": ("the net cannot hold the task", "model"),
    "precision": ("numbers overflow in this precision", "precision"),
    # Evaluation and checkpoint
    "eval_in_train_mode": ("evaluation runs in training mode", "evaluate: model.eval()"),
    "eval_metric_wrong": ("the reported number is not what it is called", "evaluate: its metric"),
    "eval_mean_of_batch_means": ("small batches count like large ones", "evaluate: weighting"),
    "eval_ignores_loader": ("evaluation reads other data than it is given", "evaluate: its loader"),
    "eval_incomplete": ("evaluation leaves samples out", "evaluate: its loop"),
    "eval_changes_model": ("evaluation changes the net", "evaluate: no_grad, eval()"),
    "eval_of_other_weights": ("evaluation does not see the training", "evaluate: which net"),
    "average_without_buffers": (
        "the average of the weights lacks BatchNorm's statistics", "average: buffers"),
    "average_too_slow": ("the average of the weights hardly moves", "decay of the average"),
    "eval_not_deterministic": ("evaluation differs from call to call", "random transforms"),
    "weights_not_saved": ("the checkpoint lacks weights or buffers", "save, load"),
    "optimizer_not_saved": ("the checkpoint lacks the optimizer's state", "save, load"),
    "scheduler_not_saved": ("the checkpoint lacks the schedule's state", "save, load"),
}  # fmt: skip


def sentence(cause: str) -> str:
    """What the cause means."""
    return CAUSES[cause][0]


def look_at(cause: str) -> str:
    """Where to look for it first."""
    return CAUSES[cause][1]

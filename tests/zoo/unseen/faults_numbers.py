"""Faults in the evaluation."""

import torch

from tests.zoo.unseen import parts
from tests.zoo.unseen.bases import cells_depthwise, digits_mlp, gratings_cnn, shapes_transformer
from tests.zoo.unseen.more_bases import many_mixup_ema, tiles_bce
from tests.zoo.unseen.registry import fault


@fault(gratings_cnn, "evaluation runs in training mode (model.eval() is missing)")
def evaluated_in_train_mode(setup):
    """BatchNorm takes its statistics from validation batches, which come sorted by class."""

    @torch.no_grad()
    def evaluate(setup, batches):
        loss, correct, seen = 0.0, 0, 0
        for inputs, targets in batches:
            logits = setup.model(inputs)
            loss += setup.loss_fn(logits, targets).item() * len(targets)
            correct += (logits.argmax(1) == targets).sum().item()
            seen += len(targets)
        return {"loss": loss / seen, "accuracy": correct / seen}

    setup.evaluate = evaluate
    data = setup.val_data
    order = data.labels.argsort(kind="stable")
    data.pictures, data.labels = data.pictures[order], data.labels[order]


@fault(shapes_transformer, "accuracy compares every prediction with every label (broadcasting)")
def accuracy_broadcasts(setup):
    """Predictions (N,) meet targets (N, 1) and give an N x N comparison."""

    @torch.no_grad()
    def evaluate(setup, batches):
        setup.model.eval()
        losses, hits = [], []
        for inputs, targets in batches:
            logits = setup.model(inputs)
            losses.append(setup.loss_fn(logits, targets))
            hits.append((logits.argmax(dim=1) == targets.unsqueeze(1)).float().mean())
        return {"loss": torch.stack(losses).mean().item(), "accuracy": sum(hits).item() / len(hits)}

    setup.evaluate = evaluate


@fault(tiles_bce, "accuracy counts the yes-no answers of all classes, mostly right noes")
def accuracy_per_answer(setup):
    """(sigmoid > 0.5) == one-hot, averaged over examples and classes: 92 % for 'never'."""

    @torch.no_grad()
    def evaluate(setup, batches):
        setup.model.eval()
        loss, right, seen = 0.0, 0.0, 0
        for inputs, targets in batches:
            logits = setup.model(inputs)
            hot = torch.nn.functional.one_hot(targets, 12)
            loss += setup.loss_fn(logits, targets).item() * len(targets)
            right += ((logits.sigmoid() > 0.5) == hot).float().mean(1).sum().item()
            seen += len(targets)
        return {"loss": loss / seen, "accuracy": right / seen}

    setup.evaluate = evaluate


@fault(digits_mlp, "only the last batch counts in the accuracy")
def last_batch_counts(setup):
    """The count of hits is set, not increased, in the loop over batches."""

    def evaluate(setup, batches):
        setup.model.eval()
        loss = accuracy = 0.0
        with torch.no_grad():
            for inputs, targets in batches:
                logits = setup.model(inputs)
                loss = setup.loss_fn(logits, targets).item()
                accuracy = (logits.argmax(1) == targets).float().mean().item()
        return {"loss": loss, "accuracy": accuracy}

    setup.evaluate = evaluate
    setup.val_loader.batch_size = 30
    order = setup.val_loader.targets.argsort(stable=True)
    setup.val_loader.inputs = setup.val_loader.inputs[order]
    setup.val_loader.targets = setup.val_loader.targets[order]


@fault(cells_depthwise, "evaluation reads the training loader instead of the one it is given")
def evaluates_on_training_data(setup):
    """The loop over batches was copied from the training loop, loader included."""

    def evaluate(setup, batches):
        return parts.evaluate(setup, setup.train_loader)

    setup.evaluate = evaluate


@fault(many_mixup_ema, "accuracy is divided by the wrong number of examples")
def accuracy_over_full_batches(setup):
    """Hits are divided by batches x batch size although the last batch is a small one."""

    @torch.no_grad()
    def evaluate(setup, batches):
        setup.model.eval()
        hits, loss = 0, 0.0
        for inputs, targets in batches:
            logits = setup.model(inputs)
            hits += (logits.argmax(1) == targets).sum().item()
            loss += setup.loss_fn(logits, targets).item()
        return {"loss": loss / len(batches), "accuracy": hits / (len(batches) * 300)}

    setup.evaluate = evaluate
    setup.val_loader = parts.loader(setup.val_data, 300, shuffle=False)
    setup.save, setup.load = parts.save, parts.load


@fault(gratings_cnn, "evaluation trains the model on the validation data")
def evaluation_trains(setup):
    """backward and step were copied into the evaluation loop."""

    def evaluate(setup, batches):
        loss_sum, correct, seen = 0.0, 0, 0
        setup.model.eval()
        for inputs, targets in batches:
            setup.optimizer.zero_grad()
            logits = setup.model(inputs)
            loss = setup.loss_fn(logits, targets)
            loss.backward()
            setup.optimizer.step()
            loss_sum += loss.item() * len(targets)
            correct += (logits.argmax(1) == targets).sum().item()
            seen += len(targets)
        setup.optimizer.zero_grad()
        return {"loss": loss_sum / seen, "accuracy": correct / seen}

    setup.evaluate = evaluate

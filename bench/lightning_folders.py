"""What bench/folders.py runs for Lightning: the script that its documentation leads to.

    python bench/lightning_folders.py IMAGES MODEL SIZE BATCH EPOCHS WORKERS

ImageFolder of torchvision, a DataLoader, a LightningModule with a net of timm, MLFlowLogger. It
imports nothing of this project, and runs in the folder where it may write.
"""

import sys
from pathlib import Path
from typing import Any

import lightning
import timm
import torch
from lightning.pytorch.loggers import MLFlowLogger
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder


class Classifier(lightning.LightningModule):
    def __init__(self, model: str, classes: int):
        super().__init__()
        self.net = timm.create_model(model, num_classes=classes)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        images, labels = batch
        loss = functional.cross_entropy(self.net(images), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        images, labels = batch
        logits = self.net(images)
        self.log("val/loss", functional.cross_entropy(logits, labels))
        self.log("val/accuracy", (logits.argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.05)


def main() -> None:
    images, model, *numbers = sys.argv[1:]
    size, batch, epochs, workers = map(int, numbers)
    lightning.seed_everything(0)
    transform = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    data = {split: ImageFolder(str(Path(images) / split), transform) for split in ("train", "val")}
    loaders = []
    for split in data:
        loader: DataLoader[Any] = DataLoader(
            data[split],
            batch_size=batch,
            shuffle=split == "train",
            drop_last=split == "train",
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        loaders.append(loader)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=MLFlowLogger("folders", tracking_uri="sqlite:///mlflow.db"),
        enable_progress_bar=False,
    )
    classifier = Classifier(model, len(data["train"].classes))
    trainer.fit(classifier, *loaders)
    print(f"val accuracy {trainer.callback_metrics['val/accuracy']:.4f}")


if __name__ == "__main__":
    main()

"""Train both LeNets on scikit-learn's digits and write the files under ``models/trained/``.

Run from the repository root: ``python -m models.train_lenet``. It takes seconds on one CPU core and is
deterministic for one version of torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
from torch import Tensor, nn

from models.lenet import HandwrittenBatchNorm, LeNet

FOLDER = Path(__file__).parent / "trained"
INPUT, OUTPUT = "images", "logits"
EPOCHS, BATCH, LEARNING_RATE, SEED = 40, 64, 3e-3, 0


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images ``[N, 1, 8, 8]`` in 0..1, training labels ``[N]``, and the held-out quarter of both."""
    data = load_digits()
    images = (data.images[:, None] / 16.0).astype(np.float32)
    x, x_held, y, y_held = train_test_split(
        images, data.target.astype(np.int64), test_size=0.25, random_state=SEED, stratify=data.target
    )
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(x_held), torch.from_numpy(y_held)


def train(model: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """Train in place with AdamW and a one-cycle rate; returns the model in evaluation mode."""
    order = torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=3 * LEARNING_RATE, total_steps=EPOCHS * steps
    )
    model.train()
    for _ in range(EPOCHS):
        # The incomplete last batch is left out: its statistics would be noise.
        for index in torch.randperm(len(images), generator=order)[: steps * BATCH].view(steps, BATCH):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(images[index]), labels[index])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the label's."""
    return float((model(images).argmax(1) == labels).double().mean())


def export(model: nn.Module, path: Path, *, keep_bn: bool = False) -> None:
    """Write one file, dynamic in the batch, by torch's default exporter.

    ``keep_bn`` turns the exporter's graph optimisation off, which would fold BatchNorm into its
    producer. The source locations that the exporter records are dropped: they name the exporting machine.
    """
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        optimize=not keep_bn,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for node in [*proto.graph.node, *(n for f in proto.functions for n in f.node)]:
        kept = [p for p in node.metadata_props if p.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images, labels, held_images, held_labels = digits()
    np.savez_compressed(folder / "digits_heldout.npz", images=held_images.numpy(), labels=held_labels.numpy())
    for name, norm in (("lenet_digits", None), ("lenet_digits_handwritten", HandwrittenBatchNorm)):
        torch.manual_seed(SEED)
        model = train(LeNet(norm) if norm else LeNet(), images, labels)
        print(f"{name}: held-out accuracy {accuracy(model, held_images, held_labels):.2%}")
        torch.save(model.state_dict(), folder / f"{name}.pt")
        export(model, folder / f"{name}.onnx")
        if norm is None:
            export(model, folder / f"{name}_bn.onnx", keep_bn=True)


if __name__ == "__main__":
    main()

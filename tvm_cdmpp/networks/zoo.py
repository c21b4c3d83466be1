"""Definitions, in PyTorch, of the networks that `tvm.relay.testing` does not have.

Weights are random: only shapes and operators matter to a search. Attention is written with matmul
and softmax, which every TVM importer from 0.12 on reads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerSize:
    """Size of a Transformer encoder."""

    layers: int
    """Number of encoder layers."""
    width: int
    """Features per token; the feed-forward part is four times as wide."""
    heads: int
    """Attention heads; divides `width`."""


class _Attention(nn.Module):
    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.heads, self.head_width = size.heads, size.width // size.heads
        self.query = nn.Linear(size.width, size.width)
        self.key = nn.Linear(size.width, size.width)
        self.value = nn.Linear(size.width, size.width)
        self.output = nn.Linear(size.width, size.width)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1, self.heads, self.head_width).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(2, 3)) * self.head_width**-0.5
        mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
        output: Tensor = self.output(
            mixed.transpose(1, 2).reshape(len(x), -1, self.heads * self.head_width)
        )
        return output


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class _BertLayer(nn.Module):
    """Encoder layer with the norms after the sums."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.attention, self.attention_norm = _Attention(size), nn.LayerNorm(size.width)
        self.feed_forward, self.output_norm = _feed_forward(size.width), nn.LayerNorm(size.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x))
        output: Tensor = self.output_norm(x + self.feed_forward(x))
        return output


class _VitLayer(nn.Module):
    """Encoder layer with the norms before attention and feed-forward."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(size.width), _Attention(size)
        self.output_norm, self.feed_forward = nn.LayerNorm(size.width), _feed_forward(size.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        output: Tensor = x + self.feed_forward(self.output_norm(x))
        return output


class Bert(nn.Module):
    """BERT encoder: token ids (1, tokens) to features (1, tokens, width) and (1, width)."""

    VOCABULARY = 30522

    def __init__(self, size: TransformerSize, tokens: int) -> None:
        super().__init__()
        self.word = nn.Embedding(self.VOCABULARY, size.width)
        self.position = nn.Parameter(torch.randn(1, tokens, size.width))
        self.norm = nn.LayerNorm(size.width)
        self.encoder = nn.Sequential(*(_BertLayer(size) for _ in range(size.layers)))
        self.pooler = nn.Linear(size.width, size.width)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode sequences."""
        features = self.encoder(self.norm(self.word(token_ids) + self.position))
        return features, torch.tanh(self.pooler(features[:, 0]))


class Vit(nn.Module):
    """Vision Transformer: images (N, 3, 224, 224) to class scores (N, 1000)."""

    def __init__(self, size: TransformerSize, patch: int = 16) -> None:
        super().__init__()
        tokens = (224 // patch) ** 2 + 1
        self.patches = nn.Conv2d(3, size.width, kernel_size=patch, stride=patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, size.width))
        self.position = nn.Parameter(torch.randn(1, tokens, size.width))
        self.encoder = nn.Sequential(*(_VitLayer(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Classify images."""
        patches = self.patches(image).flatten(2).transpose(1, 2)
        # One image needs no copies of the token, and its graph no function that makes them.
        token = self.class_token if len(image) == 1 else self.class_token.expand(len(image), -1, -1)
        x = torch.cat([token, patches], dim=1) + self.position
        scores: Tensor = self.head(self.norm(self.encoder(x))[:, 0])
        return scores


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.is_residual = stride == 1 and channels == out_channels
        expand = [_conv_norm(channels, hidden, 1)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            _conv_norm(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.layers(x)
        return x + update if self.is_residual else update


def _conv_norm(
    channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class MobileNetV2(nn.Module):
    """MobileNet v2: image (1, 3, 224, 224) to class scores (1, 1000)."""

    # Expansion, output channels, repeats, first stride (table 2 of the MobileNet v2 paper).
    STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        channels = 32
        layers: list[nn.Module] = [_conv_norm(3, channels, 3, stride=2)]
        for expansion, out_channels, repeats, first_stride in self.STAGES:
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                layers.append(_InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        self.features = nn.Sequential(*layers, _conv_norm(channels, 1280, 1))
        self.head = nn.Linear(1280, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # torch's own start lets the signal fade until the output is the same for all images
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Classify images."""
        scores: Tensor = self.head(self.features(image).mean(dim=(2, 3)))
        return scores


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooEntry:
    """How to make one network, and what it takes."""

    build: Callable[[], nn.Module]
    """Makes the module, drawing weights from torch's default generator."""
    input_name: str
    """Name of its only input."""
    shape: tuple[int, ...]
    """Shape of that input."""
    dtype: str
    """Element type of that input."""


_IMAGE = (1, 3, 224, 224)
_TOKENS = 128
_TINY = TransformerSize(layers=2, width=128, heads=2)
_BASE = TransformerSize(layers=12, width=768, heads=12)
_VIT_TINY = TransformerSize(layers=12, width=192, heads=3)


def _tokens(size: TransformerSize) -> ZooEntry:
    return ZooEntry(
        build=lambda: Bert(size, _TOKENS), input_name="token_ids", shape=(1, _TOKENS), dtype="int64"
    )


def _image(build: Callable[[], nn.Module]) -> ZooEntry:
    return ZooEntry(build=build, input_name="image", shape=_IMAGE, dtype="float32")


ZOO = {
    "bert-tiny": _tokens(_TINY),
    "bert-base": _tokens(_BASE),
    "vit-tiny": _image(lambda: Vit(_VIT_TINY)),
    "mobilenet-v2": _image(MobileNetV2),
}


def build_module(name: str, *, seed: int) -> nn.Module:
    """Make a network of the zoo with random weights, in evaluation mode.

    Parameters
    ----------
    name
        A key of `ZOO`.
    seed
        Same seed, same weights; torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ZOO[name].build().eval()

"""Training: a transformers.Trainer that unlearns, its settings and its stop rule."""

from letheon.train.config import UnlearnConfig
from letheon.train.depth import choose_layers
from letheon.train.scope import adapter_for
from letheon.train.stop import Probe, StopRule
from letheon.train.trainer import UnlearnTrainer

__all__ = ["Probe", "StopRule", "UnlearnConfig", "UnlearnTrainer", "adapter_for", "choose_layers"]

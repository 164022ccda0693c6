"""What each process of test_processes.py runs: it trains, and says what it has come to.

python -m torch.distributed.run --nproc-per-node 2 tests/train/in_two_processes.py MODEL LOG OUTPUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from letheon import UnlearnConfig, UnlearnTrainer
from letheon.dialogues import read_dialogues
from letheon.models import load_model, load_tokenizer

model, log, output = (Path(given) for given in sys.argv[1:])
dialogues = read_dialogues(log)
trainer = UnlearnTrainer(
    load_model(str(model)),
    UnlearnConfig(
        output_dir=str(output),
        per_device_train_batch_size=1,
        max_steps=4,
        stop_every=1,
        stop_patience=9,
        # All is within the guards, and never enough: there is a best state at each probe.
        stop_probability=1e-9,
        stop_normal_budget=1e9,
        stop_kl_budget=1e9,
        stop_normal_kept=0.0,
        save_strategy="steps",
        save_steps=2,
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    ),
    forget_dataset=[one for one in dialogues if one.label == "forget"],
    normal_dataset=[one for one in dialogues if one.label == "normal"],
    processing_class=load_tokenizer(str(model)),
)
trainer.train()
assert trainer.stop is not None
found = {
    "stop": trainer.stop.model_dump(),
    "probes": [probe.probability for probe in trainer.probes],
    "weights": sum(float(one.double().abs().sum()) for one in trainer._trainable().values()),
    "adapted": trainer._weights.state(),
    "negative": [row["negative"] for row in trainer.state.log_history if "negative" in row],
}
(output / f"found-{trainer.args.process_index}.json").write_text(json.dumps(found), encoding="utf-8")
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()

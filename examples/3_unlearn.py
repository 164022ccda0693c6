"""Make a model forget the demo's bad dialogues, with an adapter.

python examples/3_unlearn.py MODEL OUTPUT    (a model that says these things, such as one that the demo has tuned)
python examples/3_unlearn.py --tiny
"""

from _shared import arguments, log, open_model

from letheon import UnlearnConfig, UnlearnTrainer, adapter_for

given = arguments(__doc__, model="model folder", output="where the adapter is written")
forget, normal = log(given.tiny)
model, tokenizer = open_model(given.model)

# A random model has nothing to forget: without its stop rule the tiny run trains all the same.
settings = {"max_steps": 4, "stop_rule": False, "disable_tqdm": True} if given.tiny else {}
trainer = UnlearnTrainer(
    model,
    args=UnlearnConfig(output_dir=given.output or "letheon-output", **settings),
    forget_dataset=forget,
    normal_dataset=normal,
    peft_config=adapter_for(model),
    processing_class=tokenizer,
)
trainer.train()
print(f"stopped at step {trainer.stop.step}: {trainer.stop.reason}")
if given.output:
    trainer.save_model(given.output)

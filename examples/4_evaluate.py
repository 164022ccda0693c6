"""What does a model still know? Measures it before and after unlearning on the demo's dialogues.

python examples/4_evaluate.py BEFORE AFTER   (AFTER may be an adapter's folder)
python examples/4_evaluate.py --tiny         (two random models)
"""

from _shared import arguments, log, open_model, tiny

from letheon import evaluate_model
from letheon.evaluate import EvalSets, headline
from letheon.recipe import Gates
from letheon.records import Estimate

given = arguments(__doc__, before="model folder before unlearning", after="model or adapter folder after it")
forget, normal = log(given.tiny)
sets = EvalSets(
    forget=[dialogue.last_turn for dialogue in forget],
    normal_held_out=[dialogue.last_turn for dialogue in normal[:40]],
    general=["The sea is salt because rivers carry minerals into it, and only the water leaves again."],
)

model, tokenizer = open_model(given.before)
before = evaluate_model(model, tokenizer, sets, max_new_tokens=16)
model = tiny(seed=1)[0] if given.tiny else open_model(given.after)[0]
after = evaluate_model(model, tokenizer, sets, reference=before, max_new_tokens=16)

for name in ("probability", "extraction_strength", "exact_memorization", "rouge_l", "undesired_rate", "kl"):
    found = [evaluation.metrics["forget"][name] for evaluation in (before, after)]
    shown = [f"{m.mean:.3f}" if isinstance(m, Estimate) else f"not computed: {m.not_computed}" for m in found]
    print(f"{name:20} before {shown[0]:10} after {shown[1]}")
print(headline({"before": before.metrics, "after": after.metrics}, Gates()).why)

"""What should the model say instead? Clusters the expected answers of a few of the demo's dialogues.

python examples/2_expect.py [--tiny]
"""

from _shared import arguments, log

from letheon import expected_answers

given = arguments(__doc__)
forget, _ = log(given.tiny)

targets = expected_answers([dialogue.last_turn for dialogue in forget[:4]], sources=("data", "safe-replies"))

for target in targets:
    print(f"{target.turn.dialogue.id}: {target.turn.question}")
    for candidate in sorted(target.candidates, key=lambda candidate: -candidate.weight):
        print(f"   {candidate.weight:.3f}  {candidate.source:12} cluster {candidate.cluster}  {candidate.text}")

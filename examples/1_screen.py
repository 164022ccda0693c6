"""Which answers of a log need unlearning? Screens the demo's log and compares with its labels.

python examples/1_screen.py          (four judges; half a minute)
python examples/1_screen.py --tiny   (patterns only; seconds)
"""

from _shared import EXAMPLES, LOG, arguments

from letheon import screen_dialogues
from letheon.dialogues import read_dialogues
from letheon.recipe import Screen
from letheon.screen import build_judges, score_screening

given = arguments(__doc__)
dialogues = read_dialogues(LOG)

settings = Screen(judges=["privacy"] if given.tiny else ["embedding", "privacy", "contradiction"], examples=EXAMPLES)
verdicts = screen_dialogues(dialogues, build_judges(settings), forget_above=0.5, normal_below=0.3)

for verdict in [verdict for verdict in verdicts if verdict.decision == "forget"][:5]:
    print(f"{verdict.id:10} {verdict.category:14} {verdict.score:.2f}  by {verdict.judge}: {verdict.reason}")
print(score_screening(verdicts, dialogues))

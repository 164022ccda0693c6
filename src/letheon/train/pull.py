"""How strongly expected answers pull, where nobody has set it: by what they say.

A pull toward abstentions spreads: neighbouring normal questions are then met with abstentions too, so it is light.
Answers that say something of their own, a corrected fact above all, do not spread like that; and pulled lightly they
are not learnt before the old ones are forgotten, and the model then says something else again
(docs/why-these-defaults.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from letheon.expected import Target, tells

TELLING, ABSTAINING = 1.0, 0.2
"""λ_pos of answers that say something, and of abstentions."""


def pull(targets: Sequence[Target]) -> float:
    """λ_pos for what is expected: 1, or 0.2 where it does not state anything."""
    return TELLING if tells(targets) else ABSTAINING

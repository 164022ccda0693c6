"""Whom a log is about: persons, e-mail addresses and phone numbers, each with the dialogues that hold it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from letheon.records import Dialogue
from letheon.screen.privacy import FindNames, find_identifiers
from letheon.screen.subject import Subject

Key = tuple[str, ...]
CONTACTS = ("e-mail", "phone")


@dataclass(frozen=True)
class SubjectRow:
    """Somebody (or some contact) whom a log is about.

    Attributes:
        kind: "person", "e-mail", "phone", or "subject" for a `subject` of a row that no text names.
        label: The commonest form in the log, of those of several words where there are such; personal data.
        dialogues: Ids of the dialogues, in the order of the log.
    """

    kind: str
    label: str
    dialogues: tuple[str, ...]

    @property
    def masked(self) -> str:
        """What may be shown of the label: initials, first letters, the last two digits."""
        if self.kind == "e-mail":
            name, _, host = self.label.partition("@")
            return f"{name[:1]}…@{host[:1]}…"
        if self.kind == "phone":
            return f"…{self.label[-2:]}"
        return " ".join(f"{part[0]}." for part in self.label.replace("-", " ").replace("_", " ").split())


def list_subjects(dialogues: Sequence[Dialogue], find_names: FindNames) -> list[SubjectRow]:
    """Everybody whom the log names, who is in the most dialogues first.

    Forms of one name are one person: other case and accents, "Quint, Marla", titles, middle names. "M. Quint" and
    "Ms Quint" are added to the full name that they fit, if it is the only one in the log; names that are merely close
    are persons of their own.

    Args:
        dialogues: The log.
        find_names: How names are found.
    """
    texts = ["\n".join(message.content for message in dialogue.messages) for dialogue in dialogues]
    forms: dict[tuple[str, Key], Counter[str]] = defaultdict(Counter)
    places: dict[tuple[str, Key], dict[str, None]] = defaultdict(dict)

    def note(kind: str, key: Key, form: str, id: str) -> None:
        if key:
            forms[kind, key][form] += 1
            places[kind, key][id] = None

    for dialogue, text, names in zip(dialogues, texts, find_names(texts), strict=True):
        for one in names:
            if one.kind == "person":
                form = " ".join(text[one.start : one.end].split())
                note("person", _key(form), form, dialogue.id)
        for found in find_identifiers(text):
            if found.kind in CONTACTS:
                value = text[found.start : found.end]
                digits = "".join(character for character in value if character.isdigit())
                note(found.kind, (digits if found.kind == "phone" else value.casefold(),), value, dialogue.id)
    people = [key for kind, key in forms if kind == "person"]
    whole = {key: _whole(key, people) for key in people}
    for dialogue in dialogues:
        if dialogue.subject:
            key = _key(dialogue.subject)
            kind = "person" if whole.get(key, key) in whole.values() else "subject"
            note(kind, key, dialogue.subject, dialogue.id)
    merged: dict[tuple[str, Key], list[Key]] = defaultdict(list)
    for kind, key in forms:
        merged[kind, whole.get(key, key) if kind == "person" else key].append(key)
    order = {dialogue.id: number for number, dialogue in enumerate(dialogues)}
    rows = []
    for (kind, key), keys in merged.items():
        label = max(forms[kind, key].items(), key=lambda item: (kind == "person" and " " in item[0], item[1]))[0]
        ids = {id for one in keys for id in places[kind, one]}
        rows.append(SubjectRow(kind, label, tuple(sorted(ids, key=order.__getitem__))))
    return sorted(rows, key=lambda row: (-len(row.dialogues), row.kind, row.label))


def _key(name: str) -> Key:
    """First and last part of a name, folded; the one part of a shorter one."""
    parts = Subject(name).parts
    return (parts[0], parts[-1]) if len(parts) > 1 else parts


def _whole(key: Key, people: Iterable[Key]) -> Key:
    """The only full name that an initial and surname, or a surname alone, can stand for; otherwise itself."""
    if len(key) == 2 and len(key[0]) > 1:
        return key
    initial = key[0] if len(key) == 2 else ""
    fits = [
        one
        for one in people
        if len(one) == 2 and len(one[0]) > 1 and one[1] == key[-1] and one[0].startswith(initial)
    ]
    return fits[0] if len(fits) == 1 else key

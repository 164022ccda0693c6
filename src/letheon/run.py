"""The run folder: where the stages leave their files, and which of them are out of date."""

from __future__ import annotations

import difflib
import hashlib
import json
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from letheon.dialogues import (
    Paraphrase,
    count_dialogues,
    paragraphs_of,
    raise_faults,
    read_dialogues,
    read_paraphrases,
    stream_dialogues,
)
from letheon.errors import InputError, check_all
from letheon.expected import read_safe_replies
from letheon.models import (
    check_model,
    check_quantizing,
    context_length,
    fingerprint,
    load_config,
    load_tokenizer,
    model_hash,
)
from letheon.recipe import FaultyRecipeError, Recipe, absolute_paths, apply_override, check_recipe, load_recipe
from letheon.records import Dialogue, Results, Verdict, read_versioned, stream_verdicts, write_text
from letheon.review.decisions import read_decisions

MANIFEST_SCHEMA = "letheon/manifest/1"
RESOLVED = "# Resolved by letheon: every setting, with absolute paths."
"""First line of a run folder's recipe, which is overwritten without asking."""


class Run:
    """A recipe and its folder.

    Args:
        recipe: The resolved recipe.

    Attributes:
        folder: `recipe.output`.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.folder = recipe.output
        self.verdicts_file = self.folder / "verdicts.jsonl"
        self.decisions_file = self.folder / "decisions.jsonl"
        self.audit_file = self.folder / "audit.json"
        self.training_file = self.folder / "training.jsonl"
        self.samples_file = self.folder / "samples.jsonl"
        self.results_file = self.folder / "results.json"
        self.stress_file = self.folder / "stress.json"
        self.report_file = self.folder / "report.html"
        self.model_folder = self.folder / "model"
        self.checkpoints = self.folder / "checkpoints"
        self.cache = self.folder / "cache"
        self.scores_file = self.folder / "api-scores.jsonl"
        self._manifest_file = self.folder / "manifest.json"
        self._lock = FileLock(self.folder.absolute() / ".lock", is_singleton=True)
        self._dialogues: list[Dialogue] | None = None

    @classmethod
    def open(cls, where: Path, overrides: Sequence[str] = ()) -> Run:
        """Open a recipe file, or the recipe of a run folder, with overrides.

        Raises:
            InputError: There is none, or it is faulty; then with what is wrong with its files and model as well.
        """
        try:
            return cls(_recipe_of(where, overrides))
        except FaultyRecipeError as error:
            faults = list(error.faults)
            if error.rest is not None:
                try:
                    cls(error.rest).check()
                except InputError as others:
                    faults += others.faults
            raise InputError(faults) from None

    def check(self, *, whole: bool = False) -> None:
        """Look for every fault that can be found before any weights load, and name them all.

        Args:
            whole: For a run of every stage: also that the labels, where nothing else decides, leave something to
                forget and something to keep.

        Raises:
            InputError: Missing files or model, faulty or too long dialogues, unknown settings, a run folder of
                another version.
        """
        recipe = self.recipe
        checks: list[Callable[[], object]] = [
            lambda: check_model(recipe.model),
            self._check_beside,
            lambda: check_quantizing(recipe.model) if recipe.quantizes else None,
            lambda: count_dialogues(recipe.data.dialogues),
            self._check_paraphrases,
            self.general,
            self._check_non_members,
            self._check_screen_files,
            self._check_judges,
            self._check_names,
            self._check_rules,
            self._check_changed_facts,
            lambda: read_safe_replies(recipe.expected.safe_replies),
            self._check_subject,
            lambda: self._check_labels() if whole else None,
            self._check_output,
            lambda: Results.load(self.results_file),
            lambda: read_decisions(self.decisions_file),
            self.manifest,
            self._check_training,
        ]
        check_all(checks)

    def _check_beside(self) -> None:
        """The models that are read by the tokenizer of the one that is treated."""
        named = {"evaluate.control": self.recipe.evaluate.control, "base": self.recipe.base}
        others = {field: name for field, name in named.items() if name is not None}
        check_all([partial(check_model, name) for name in others.values()])
        own = load_tokenizer(self.recipe.model).get_vocab() if others else {}
        faults = [
            f"{field}: {name} has other tokens than the model: name one with the same tokenizer"
            for field, name in others.items()
            if load_tokenizer(name).get_vocab() != own
        ]
        if faults:
            raise InputError(faults)

    def _check_paraphrases(self) -> None:
        """Each has to be of a dialogue of the log: another would be used for nothing."""
        paraphrases, data = self.paraphrases(), self.recipe.data
        known = {dialogue.id for dialogue in self.log()} if paraphrases else set()
        raise_faults(
            [
                f"{data.paraphrases}: {one.dialogue.id!r}: of: {data.dialogues} has no dialogue {one.of!r}"
                for one in paraphrases
                if one.of not in known
            ]
        )

    def _check_non_members(self) -> None:
        others = self.non_members()
        if others:
            from letheon.evaluate.non_members import check_non_members, learnable, pairs_of

            name = f"{self.recipe.evaluate.non_members} (evaluate.non_members)"
            pairs = pairs_of(dialogue.last_turn for dialogue in others)
            reworded = [paraphrase.dialogue.last_turn for paraphrase in self.paraphrases()]
            data = self.recipe.data
            known = {str(data.dialogues): learnable(self.log()), str(data.paraphrases): pairs_of(reworded)}
            check_non_members(name, pairs, known)

    def _check_screen_files(self) -> None:
        examples, knowledge = self.recipe.screen.examples, self.recipe.screen.knowledge
        faults = list[str]()
        if knowledge is not None and not knowledge.is_file():
            faults.append(f"{knowledge}: no such file (screen.knowledge)")
        if examples is not None:
            try:
                read_dialogues(examples)
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(faults)

    def _check_judges(self) -> None:
        from letheon.screen import check_judges

        check_judges(self.recipe.screen, self.recipe.model)

    def _check_names(self) -> None:
        if "privacy" in self.recipe.screen.judges:
            from letheon.screen.privacy import source_of

            source_of(self.recipe.screen.ner)

    def _check_rules(self) -> None:
        if self.recipe.screen.rules is not None:
            from letheon.screen.rules import read_rules

            read_rules(self.recipe.screen.rules)

    def _check_changed_facts(self) -> None:
        if self.recipe.screen.changed_facts is not None:
            from letheon.screen.outdated import read_changed_facts

            read_changed_facts(self.recipe.screen.changed_facts)

    def _check_labels(self) -> None:
        """Where labels alone decide, what they leave is known before anything runs."""
        recipe = self.recipe
        if recipe.data.subject is not None or set(recipe.screen.judges) != {"labels"} or self.is_current("screen"):
            return
        labels = {dialogue.label for dialogue in self.log()}
        log, faults = recipe.data.dialogues, []
        if "forget" not in labels:
            faults.append(
                f'{log}: no dialogue to forget: none has "label": "forget"; label some, or name other screen.judges'
            )
        if "normal" not in labels:
            faults.append(
                f'{log}: no normal dialogue to keep the model\'s ability with: none has "label": "normal"; '
                "add some to the log"
            )
        if faults:
            raise InputError(faults)

    def _check_output(self) -> None:
        """Refuse to overwrite what is not ours."""
        folder, model = self.folder, Path(self.recipe.model)
        held = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        if held.exists() and not held.is_dir():
            raise InputError(f"{folder}: cannot be the run folder (output): {held} is a file")
        if model.is_dir() and self.model_folder.resolve() in (model.resolve(), *model.resolve().parents):
            raise InputError(
                f"{model}: the run would overwrite the model it starts from; choose another folder as output"
            )
        recipe = folder / "recipe.yaml"
        if self._manifest_file.is_file() or not recipe.is_file():
            return
        if not recipe.read_text(encoding="utf-8", errors="replace").startswith(RESOLVED):
            raise InputError(
                f"{folder}: holds a recipe.yaml that no run wrote and the run would overwrite; "
                "choose another folder as output"
            )

    def _check_training(self) -> None:
        """Check the training's settings, and that every dialogue fits into the model's context."""
        from letheon.chat import check_tokenizer, encode_dialogue, encode_reply, encode_text
        from letheon.train.recipe_run import check_layers, training_settings

        recipe = self.recipe
        settings = training_settings(recipe, str(self.checkpoints))
        tokenizer = load_tokenizer(recipe.model)
        check_tokenizer(tokenizer)
        config = load_config(recipe.model)
        longest = settings.max_length or context_length(config)
        faults = []
        try:
            check_layers(recipe, config.get_text_config().num_hidden_layers)
        except InputError as error:
            faults += error.faults
        log = ((recipe.data.dialogues, dialogue) for dialogue in self.log())
        reworded = ((recipe.data.paraphrases or Path(), paraphrase.dialogue) for paraphrase in self.paraphrases())
        others = ((recipe.evaluate.non_members or Path(), dialogue) for dialogue in self.non_members())
        for path, dialogue in chain(log, reworded, others):
            try:
                encode_dialogue(tokenizer, dialogue, longest)
                for number, answer in enumerate(dialogue.expected):
                    name = f"dialogue {dialogue.id!r}, expected[{number}]"
                    encode_reply(tokenizer, dialogue.last_turn.prompt, answer, longest, name=name)
            except InputError as error:
                faults.append(f"{path}: {error}")
        for number, text in enumerate(self.general(), start=1):
            try:
                encode_text(tokenizer, text, longest)
            except InputError as error:
                faults.append(
                    f"{recipe.data.general}: paragraph {number}: {error}; join it to another, or leave it out"
                )
        raise_faults(faults)

    def _check_subject(self) -> None:
        data = self.recipe.data
        if data.subject is None:
            if data.aliases:
                raise InputError("data.aliases: whose? set data.subject, or leave the aliases out")
            return
        from letheon.screen.subject import Subject

        subject = Subject(data.subject, data.aliases)
        known = {dialogue.subject for dialogue in self.log() if dialogue.subject}
        texts = (message.content for dialogue in self.log() for message in dialogue.messages)
        if not any(map(subject.is_field, known)) and not any(map(subject.mentions, texts)):
            near = difflib.get_close_matches(data.subject, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the log names {len(known)} subjects"
            raise InputError(f"data.subject: no dialogue of the log has the subject {data.subject!r}; {hint}")

    # -- inputs ------------------------------------------------------------------------------------------------------

    def log(self) -> Iterator[Dialogue]:
        """The log, one dialogue at a time."""
        return stream_dialogues(self.recipe.data.dialogues)

    @property
    def dialogues(self) -> list[Dialogue]:
        """The log, whole."""
        if self._dialogues is None:
            self._dialogues = read_dialogues(self.recipe.data.dialogues)
        return self._dialogues

    def paraphrases(self) -> list[Paraphrase]:
        """The reworded questions; none where the recipe names no file."""
        path = self.recipe.data.paraphrases
        return [] if path is None else read_paraphrases(path)

    def non_members(self) -> list[Dialogue]:
        """Dialogues that no model was trained on; none where the recipe names no file."""
        path = self.recipe.evaluate.non_members
        return [] if path is None else read_dialogues(path)

    def general(self) -> list[str]:
        """Paragraphs of general text; none where the recipe names no file.

        Raises:
            InputError: The file cannot be read or holds no text.
        """
        path = self.recipe.data.general
        if path is None:
            return []
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{path}: no such text file, or not UTF-8 (data.general)") from None
        paragraphs = paragraphs_of(text)
        if not paragraphs:
            raise InputError(f"{path}: empty (data.general); leave the setting out to measure no general text")
        return paragraphs

    def stream_verdicts(self) -> Iterator[Verdict]:
        """The verdicts of the screening, one at a time.

        Raises:
            InputError: It has not run; or, at the end, the faulty lines of the file.
        """
        if not self.verdicts_file.is_file():
            raise InputError(f"{self.folder}: not screened yet; run 'letheon screen {self.folder}' first")
        return stream_verdicts(self.verdicts_file)

    def verdicts(self) -> list[Verdict]:
        """The verdicts of the screening, all of them.

        Raises:
            InputError: It has not run, or the file has faulty lines.
        """
        return list(self.stream_verdicts())

    # -- what is out of date -----------------------------------------------------------------------------------------

    def key(self, stage: str) -> str:
        """A hash of all that a stage's outcome depends on: settings, data, model, and the stages before it."""
        recipe = self.recipe
        data, seed = recipe.data, recipe.seed
        parts: list[Any]
        if stage == "screen":
            return _key(_hash(data.dialogues), data.subject, data.aliases, *self._judges(), seed)
        if stage == "unlearn":
            # The verdicts themselves, not the screening's key: a person may have changed them. Of each only what
            # training goes by: a review that confirms what the judges decided changes nothing.
            verdicts = self.stream_verdicts() if self._left("screen") else ()
            digest = hashlib.sha256()
            for v in verdicts:
                digest.update(json.dumps((v.id, v.turn, v.decision, v.category)).encode())
            parts = [digest.hexdigest(), _hash(data.dialogues), _hash(data.paraphrases)]
            parts += [data.held_out, data.most_normal, data.probe]
            parts += [model_hash(recipe.base)] if recipe.base else []
            parts += [model_hash(recipe.model), recipe.expected, _hash(recipe.expected.safe_replies)]
            parts += [_hash(recipe.screen.changed_facts)] if "facts" in recipe.expected.sources else []
            # Answers of the model's own are cut at that length, and some are judged.
            own = {"model", "alternates"} & {*recipe.expected.sources}
            parts += [recipe.evaluate.max_new_tokens] if own else []
            parts += self._judges() if "model" in own else []
            return _key(*parts, recipe.objective, recipe.tuning, recipe.train, recipe.stop, seed)
        control = recipe.evaluate.control
        if stage == "stress":
            # Gates are held against what was found, whenever that was.
            attacked = {k: v for k, v in recipe.stress.model_dump().items() if not k.startswith("max_")}
            parts = [self.key("unlearn"), _hash(data.general), attacked, model_hash(control) if control else None]
            return _key(*parts, recipe.evaluate.max_new_tokens)
        # By what is in these, and not by where they lie.
        measured = recipe.evaluate.model_dump(mode="json", exclude={"control", "non_members"})
        parts = [self.key("unlearn"), _hash(data.general), _hash(recipe.evaluate.non_members), measured]
        parts += [recipe.gates, recipe.show_texts, model_hash(control) if control else None]
        return _key(*parts, *self._judges())

    def _judges(self) -> list[Any]:
        """What the judges depend on: settings, files and models, by what is in them and not by where they lie."""
        settings = self.recipe.screen
        sections: list[Any] = [getattr(settings, name, None) for name in settings.judges]
        models = [section.model or self.recipe.model for section in sections if hasattr(section, "model")]
        elsewhere: Any = {name: {"model"} for name in ("classifier", "guard", "pair", "consistency")}
        files = ("examples", "knowledge", "rules", "changed_facts")
        where = ("engine", "ray")
        plain = settings.model_dump(mode="json", exclude=dict.fromkeys((*files, *where), True) | elsewhere)
        parts = [plain, *(_hash(getattr(settings, name)) for name in files), *map(model_hash, models)]
        if "privacy" in settings.judges:
            from letheon.screen.privacy import source_of

            parts.append(source_of(settings.ner))
        if "embedding" in settings.judges:
            from letheon.screen.embedding import has_embedder

            parts += [] if has_embedder() else ["without MiniLM"]
        return parts

    def is_current(self, stage: str) -> bool:
        """Whether a stage has run on exactly these inputs, and what it left is still there."""
        return self.manifest().get("stages", {}).get(stage) == self.key(stage) and self._left(stage)

    def _left(self, stage: str) -> bool:
        if stage == "screen":
            return self.verdicts_file.is_file()
        results = Results.load(self.results_file)
        if stage == "unlearn":
            # A model that was already clean is left as it was.
            return results.stop is not None and (results.stop.step == 0 or self.model_folder.is_dir())
        if stage == "stress":
            return self.stress_file.is_file()
        return bool(results.metrics) and self.samples_file.is_file()

    def manifest(self) -> dict[str, Any]:
        """`manifest.json`, or {}.

        Raises:
            InputError: It was written by another version, or is damaged.
        """
        return read_manifest(self._manifest_file)

    def start(self, *stages: str) -> None:
        """Record that what these stages left is no longer to be relied on."""
        manifest = self.manifest()
        done = manifest.get("stages", {})
        if done.keys() & set(stages):
            manifest["stages"] = {stage: key for stage, key in done.items() if stage not in stages}
            write_text(self._manifest_file, json.dumps(manifest, indent=2) + "\n")

    def finish(self, stage: str, key: str, *, keep_scores: bool = False) -> None:
        """Record that a stage has run, on what, with what.

        Args:
            stage: Its name.
            key: Its key from before it began: what changes meanwhile it has not seen, and it is out of date then.
            keep_scores: Leave what a server has answered: not all has been asked.
        """
        recipe, data = self.recipe, self.recipe.data
        manifest = {
            "schema": MANIFEST_SCHEMA,
            "seed": recipe.seed,
            "versions": {"letheon": version("letheon"), "python": platform.python_version(), **_versions()},
            "hardware": _hardware(),
            "hashes": {
                "model": model_hash(recipe.model),
                **{n: _hash(p) for n, p in {**vars(data), **vars(recipe.evaluate)}.items() if isinstance(p, Path)},
                "verdicts": _hash(self.verdicts_file),
            },
            "stages": {**self.manifest().get("stages", {}), stage: key},
        }
        write_text(self._manifest_file, json.dumps(manifest, indent=2) + "\n")
        if not keep_scores:
            self.scores_file.unlink(missing_ok=True)

    def hold(self) -> None:
        """Keep other processes from working in the folder, until this run is let go or its process ends.

        Raises:
            InputError: One is at work there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise InputError(
                f"{self.folder}: another letheon is at work there; wait until it has ended, or choose another output"
            ) from None
        except NotImplementedError:
            # Of filelock, where a disk has no locks.
            warnings.warn(
                f"{self.folder}: its disk has no locks; see to it that no other letheon works there", stacklevel=2
            )

    def let_go(self) -> None:
        """Take back one `hold`."""
        self._lock.release()

    def screened_otherwise(self) -> list[str]:
        """The settings of the screening in the folder that this recipe has not; none where there is no screening."""
        file = self.folder / "recipe.yaml"
        if not file.is_file() or not self.verdicts_file.is_file():
            return []
        try:
            before = load_recipe(file).screen
        except InputError:
            return []
        return [f"screen.{name}" for name, value in self._resolved().screen if value != getattr(before, name)]

    def as_screened(self) -> Run:
        """This run with the screening that the recipe in its folder has.

        Raises:
            InputError: The rest of the recipe does not go with that screening.
        """
        file = self.folder / "recipe.yaml"
        own, screened = (one.model_dump(mode="json", by_alias=True) for one in (self._resolved(), load_recipe(file)))
        return Run(check_recipe({**own, "screen": screened["screen"]}, str(file)))

    def save_recipe(self) -> None:
        """Write the resolved recipe, with absolute paths, so that the folder can be rerun from anywhere."""
        write_text(self.folder / "recipe.yaml", f"{RESOLVED}\n{self._resolved().dump()}")

    def _resolved(self) -> Recipe:
        resolved = self.recipe.model_dump(mode="json", by_alias=True)
        absolute_paths(resolved)
        return Recipe.model_validate(resolved)


def _recipe_of(where: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe that is a file or lies in a run folder, with overrides."""
    if not where.is_dir():
        return load_recipe(where, overrides)
    if not (where / "recipe.yaml").is_file():
        raise InputError(f"{where}: no recipe.yaml in this folder, so it is no run folder; give a recipe file")
    raw = load_recipe(where / "recipe.yaml").model_dump(mode="json", by_alias=True)
    raw["output"] = str(where)
    for override in overrides:
        apply_override(raw, override)
    return check_recipe(raw, str(where / "recipe.yaml"))


def read_manifest(path: Path) -> dict[str, Any]:
    """Read `manifest.json`; {} where there is none.

    Raises:
        InputError: It was written by another version, or is damaged.
    """
    if not path.is_file():
        return {}
    damaged = "damaged; start a new run folder"
    manifest = read_versioned(path, MANIFEST_SCHEMA, damaged)
    for part in ("stages", "versions", "hardware", "hashes"):
        if not isinstance(manifest.get(part, {}), dict):
            raise InputError(f"{path}: {part}: expected an object: {damaged}")
    return manifest


def _key(*parts: Any) -> str:
    plain = [part.model_dump(mode="json") if hasattr(part, "model_dump") else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def _hash(path: Path | None) -> str | None:
    if path is None:
        return None
    # A hub data set has no file to hash; its name stands for it.
    return fingerprint(path) if path.is_file() else str(path)


def _versions() -> Mapping[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "datasets")}


def _hardware() -> dict[str, Any]:
    import psutil
    import torch

    return {
        "machine": platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }

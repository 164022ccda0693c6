from __future__ import annotations

import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from letheon.doctor import findings
from letheon.errors import EXTRAS, MissingExtraError, missing_modules, require_extra


def test_findings_name_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path))
    rows = {what: (found, cost) for what, found, cost in findings()}
    assert {"letheon", "python", "torch", "transformers", "peft", "device", "memory", "bfloat16"} <= rows.keys()
    assert rows["privacy judge"][0].startswith("names by ")
    assert rows["demo weights"][0] == "not fetched yet"
    assert "fetches" in rows["demo weights"][1]
    (tmp_path / "SmolLM2-135M-Instruct").mkdir()
    (tmp_path / "SmolLM2-135M-Instruct/config.json").write_text("{}")
    assert findings()[-1] == ("demo weights", str(tmp_path / "SmolLM2-135M-Instruct"), "")


def test_any_accelerator_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("letheon.models.device", lambda: torch.device("mps"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert ("device", "mps", "") in findings()


def test_missing_extra_and_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    rows = {what: (found, cost) for what, found, cost in findings()}
    assert rows["extra 'report'"] == ("missing: jinja2", "no report.html: pip install 'letheon[report]'")
    assert missing_modules("report") == ["jinja2"]
    with pytest.raises(MissingExtraError, match="the page needs the extra 'report': pip install") as caught:
        require_extra("the page", "report")
    assert caught.value.exit_code == 3


def test_extras_are_those_of_the_package() -> None:
    named = {line.split("extra ==")[1].strip(" '\"") for line in requires("letheon") or [] if "extra ==" in line}
    assert named >= EXTRAS.keys()

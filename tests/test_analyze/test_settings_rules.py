"""Options that make no sense are answered in one line that names them; the defaults and rules fit together."""

from __future__ import annotations

import pytest

from analyze.annotations import FACTORS, STUDY_FACTORS
from analyze.cli import main
from analyze.fits.conformal import ALL_METHODS
from analyze.settings import override, read_settings, study_defaults
from analyze.settings.rules import NUMBERS, WORDS
from analyze.suites.conformal import CALIBRATORS
from analyze.suites.scores import SCORES
from closerlook_common.errors import UserError


def test_the_defaults_pass_their_own_rules_and_every_rule_is_of_an_option():
    defaults = study_defaults()
    assert override(defaults, defaults.sections, "here") == defaults
    for section, name in [*WORDS, *NUMBERS]:
        assert name in defaults[section]
    assert set(WORDS["ood", "scores"]) == set(SCORES)
    assert set(WORDS["conformal", "methods"]) == set(ALL_METHODS)
    assert set(WORDS["conformal", "quantiles"]) == set(CALIBRATORS)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("[calibrators]\nmethods = ['temprature']", "no 'temprature'; did you mean temperature"),
        ("[calibrators]\nbounds = [2.0, 1.0]", "two positive numbers"),
        ("[ood]\nscores = ['msp', 'enrgy']", "no 'enrgy'; did you mean energy"),
        ("[ood]\nmcm_tau = 0", "must be positive"),
        ("[conformal]\nalpha = 1.5", "between 0 and 1"),
        ("[conformal]\nmethods = ['apss']", "did you mean aps"),
        ("[accuracy]\ninterval = 'wald'", "no 'wald'"),
        ("[split]\nfraction = 1.0", "between 0 and 1"),
        ("[bootstrap]\nreplicates = -1", "0 (none) or more"),
        ("[calibration]\nmass_bins = [15, 0]", "whole numbers"),
        ("[factors]\nfactors = ['poze']", "did you mean pose"),
        ("[factors]\nlabels = 'all'", "no 'all'"),
    ],
)
def test_what_no_metric_could_use_is_refused(tmp_path, capsys, text, printed):
    path = tmp_path / "analysis.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_settings(path)
    assert printed in str(caught.value)
    assert main(["metrics", str(tmp_path), "--config", str(path)]) == 2
    err = capsys.readouterr().err.strip()
    assert printed in err
    assert len(err.splitlines()) == 1


def test_all_sixteen_factors_may_be_asked_for():
    assert study_defaults()["factors"]["factors"] == list(STUDY_FACTORS)
    assert study_defaults().updated("factors", factors=list(FACTORS))["factors"]["factors"] == list(FACTORS)


@pytest.mark.parametrize(
    "words",
    [
        ["metrics", "c", "--bootstrap", "-1"],
        ["metrics", "c", "--jobs", "0"],
        ["metrics", "c", "--seed", "x"],
        ["summarize", "c", "--jobs", "0"],
        ["compare", "c", "a", "b", "--bootstrap", "0"],
        ["factors", "c", "--bootstrap", "-2"],
    ],
)
def test_counts_that_make_no_sense_are_refused(words, capsys):
    assert main(words) == 2
    assert words[-2] in capsys.readouterr().err


def test_settings_prints_a_file_of_the_defaults(tmp_path, capsys):
    assert main(["settings"]) == 0
    text = capsys.readouterr().out
    path = tmp_path / "analysis.toml"
    path.write_text(text)
    assert read_settings(path) == study_defaults()
    assert "# " in text

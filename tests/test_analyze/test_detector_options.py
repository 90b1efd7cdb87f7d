"""The command line names choices itself, so that to show its help loads no detector; they are the registry's."""

from __future__ import annotations

import argparse
import inspect

from analyze.commands.detector_options import add_detector_options
from analyze.detectors import DEFAULT_SETS, get


def test_defaults_offers_the_sets_of_the_registry() -> None:
    parser = argparse.ArgumentParser()
    add_detector_options(parser)
    (option,) = (action for action in parser._actions if action.dest == "defaults")
    assert option.choices == DEFAULT_SETS
    assert option.default == inspect.signature(get).parameters["defaults"].default

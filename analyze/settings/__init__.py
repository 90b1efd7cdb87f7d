"""The choices behind the numbers: the study's defaults (``study_defaults.toml``), what each option may be, and files
that change them.

Imports the names of the visual factors, nothing else of ``analyze``.
"""

from analyze.settings.options import (
    Settings,
    StudySettings,
    UndeclaredSectionError,
    canonical,
    defaults_text,
    override,
    read_settings,
    read_study,
    study_defaults,
)

__all__ = [
    "Settings",
    "StudySettings",
    "UndeclaredSectionError",
    "canonical",
    "defaults_text",
    "override",
    "read_settings",
    "read_study",
    "study_defaults",
]

"""A dataset of one's own, known by name: where its images lie below a folder, and what they are for.

    extract --model-list models.txt --datasets datasets.toml --plugins examples/own_dataset.py

In datasets.toml the table [holiday] with path = "/data/holiday" then follows this recipe, and
'extract datasets --root /data --plugins examples/own_dataset.py' finds it.
"""

from closerlook.plugins import Recipe, unlabelled

DATASETS = (
    Recipe(
        name="holiday",
        title="Photographs of a holiday",
        role="ood",
        distance="far",
        classes="",  # those of the run's labelled sets; ImageNet's 1,000 where it is left out
        folders=("holiday", "holiday-photos"),
        expected=(),  # numbers of images that a whole copy has; empty is not checked
        read=unlabelled("images"),  # labelled ones: class_folders("images")
    ),
)

"""Class spaces: what the columns of a logit matrix mean."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache

from closerlook_common.errors import UserError, nearest
from extract.classes.constants import constants_of
from extract.classes.unicode_names import text_name

IMAGENET_1K = "imagenet-1k"
BUILT_IN = (IMAGENET_1K,)


@dataclass(frozen=True)
class ClassSpace:
    """Classes by index.

    Attributes
    ----------
    id
        Name of the space; labels, heads and logits refer to it.
    names
        Class names by index. Names may repeat (``missile``, ``sunglasses`` in ImageNet): classes are distinguished
        by index alone.
    wnids
        WordNet ids by index, where the classes have them.
    """

    id: str
    names: tuple[str, ...]
    wnids: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError(f"class space {self.id!r} has no classes")
        for index, name in enumerate(self.names):
            text_name(name, f"class space {self.id!r}")
            if not name.strip():
                raise UserError(f"class space {self.id!r}: the name of class {index} is blank")
        if self.wnids is not None and len(self.wnids) != len(self.names):
            raise UserError(f"class space {self.id!r}: {len(self.names)} names but {len(self.wnids)} WordNet ids")

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    @property
    def digest(self) -> str:
        """SHA-256 of names and WordNet ids by index, whatever the space is called."""
        text = json.dumps([self.names, self.wnids], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@cache
def class_space(name: str) -> ClassSpace:
    """Return a built-in class space: ``imagenet-1k``, in the order of its sorted WordNet ids.

    Raises
    ------
    UserError
        No built-in space has that name.
    """
    if name != IMAGENET_1K:
        raise UserError(f"no class space {name!r}; built in are {', '.join(BUILT_IN)}{nearest(name, BUILT_IN)}")
    from timm.data.imagenet_info import ImageNetInfo

    wnids = tuple(ImageNetInfo().label_names())  # type: ignore[no-untyped-call]
    return ClassSpace(IMAGENET_1K, tuple(constants_of("open_clip", "zero_shot_metadata").IMAGENET_CLASSNAMES), wnids)

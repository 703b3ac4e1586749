"""Which of the registered spaces and genotypes belong to networks that classify images?"""

from __future__ import annotations

from jaxdarts.spaces import GENOTYPES, SPACES

IMAGE_SPACES = {name: one for name, one in SPACES.items() if getattr(one, "task", "classification") == "classification"}
IMAGE_GENOTYPES = {
    name: one for name, one in GENOTYPES.items() if getattr(one, "task", "classification") == "classification"
}

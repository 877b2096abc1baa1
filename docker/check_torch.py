"""Ends the build of an image unless its torch is the one that the image is for: ``cpu`` or ``cuda``."""

import sys

HINT = (
    "The CPU build of torch is not the one that the package index serves for Linux: name the index of "
    "torch's CPU builds as the build argument PIP_EXTRA_INDEX_URL, or where its wheel lies as "
    "PIP_FIND_LINKS. The image for CUDA takes torch from the package index as it is."
)

wanted = sys.argv[1]
try:
    import torch
except (ImportError, OSError) as error:  # a CUDA build without CUDA's libraries does not load
    sys.exit(f"expected torch for {wanted}, got one that does not load: {error}\n{HINT}")
got = "cuda" if torch.version.cuda else "cpu"
if got != wanted:
    sys.exit(f"expected torch for {wanted}, got {torch.__version__}\n{HINT}")

"""What holds for all tests."""

import sys

# A main module without a file, such as that of a worker of pytest-xdist, is taken by pyspark for its own
# doctests: whoever imports it, as Great Expectations does where it is installed, then exits.
if not hasattr(sys.modules["__main__"], "__file__"):
    sys.modules["__main__"].__file__ = __file__

"""pyarrow's compute functions, which are made when it is imported: a type checker cannot know them."""

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute

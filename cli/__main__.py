"""python -m concept_saliency.cli: what `accelerate launch --module` starts."""

import sys

from . import main

sys.exit(main())

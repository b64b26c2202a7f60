"""The newest samples judge a model, and nothing of them goes into it.

The cut in time is where the newest share of the *medium* zone begins, since that is what the model is made
of: if it were the newest share of all samples, an idle hour at the end would leave nothing to judge by. The
other zones are cut at the same moment.
"""

import numpy as np

from extproc.learning.dataset import Observations
from extproc.learning.zone_bounds import ZoneBounds

HELD_OUT_SHARE = 0.25


def split_at_medium_zone(
    observations: Observations, zone: ZoneBounds, newest_share: float = HELD_OUT_SHARE
) -> tuple[Observations, Observations]:
    """Observations of all zones before and from the newest share of the medium zone on."""
    medium = np.flatnonzero(zone.is_medium(observations.ttft_s))
    n_older = len(medium) - round(len(medium) * newest_share)
    cut = int(medium[n_older]) if n_older < len(medium) else len(observations)
    return observations.take(slice(None, cut)), observations.take(slice(cut, None))

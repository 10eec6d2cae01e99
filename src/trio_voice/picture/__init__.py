"""What people look at: a picture of a finished conversation, and a live view of one under way.

`record` folds a session's events into a pure `Recording`; `timeline` draws it as SVG, with `svg` for the pencil.
`scene` folds the same events into what can be seen now; `view` shows that on a terminal. `replay` does both from a
journal, with `sounds` for its sound. Nothing here changes a
conversation: it all hangs on `session.events()`.
"""

from trio_voice.picture.record import Recording as Recording, recording_of as recording_of
from trio_voice.picture.timeline import draw_timeline as draw_timeline

"""The offline speech stack of the local server: it hears, answers and speaks with no key and no network.

    microphone -> detector.py (is this speech?) -> recogniser.py (what was said?)
               -> dialogue.py or llm.py (what to answer?)
               -> clauses.py -> spoken.py -> voice.py (how does it sound?) -> loudspeaker

`brain.py` joins them behind the contract of `server/brain.py`; `engines.py` says which engine of each part is
installed; `fallback.py` holds the small stand-ins. Why these engines, and what they are not good at:
docs/discussion/speech.md.
"""

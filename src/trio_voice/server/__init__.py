"""The Realtime protocol from the other side: a local server, and what may stand behind it.

From the socket inward: `listen` (TCP, handshake, closing), `converse` (a connection's tasks), `connection` (a
session: events in), `user_audio` over `input_audio`, `turn_detection` and `hearing` (what the user said),
`conversation_items` (what was said and heard), `responses` (what is answered), `outbox` (events out).
`brain` is the interface to what answers; `scripted` is the brain that says what it was told to.

Names are imported from their modules: `serve` from `listen`, `ScriptedBrain` from `scripted`.
"""

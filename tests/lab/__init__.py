"""The audio lab: real PortAudio on PulseAudio null sinks, for machines with no sound card."""

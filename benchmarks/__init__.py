"""Measurements that a person runs: `scripts/bench`, or `python -m benchmarks` from the repository's root.

* `downlink` - from the server's send to the PCM in the application's hands, beside the floor, alternately
* `starting` - import time, and connect time on loopback
* `paced_server`, `client`, `floor` - the processes that are measured
* `machine` - where and under which load the figures were taken
* `speech_stack` - what the offline engines cost; run by itself
"""

"""`python -m trio_voice`: the command line."""

from trio_voice.cli import main

main()

"""`python -m tvixstore.cli` is `tvix-store`."""

from tvixstore.cli.app import main

main()

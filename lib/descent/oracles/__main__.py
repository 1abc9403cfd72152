"""`python -m descent.oracles [FILE]` measures every oracle."""

from descent.oracles import main

main()

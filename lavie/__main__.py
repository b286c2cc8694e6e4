"""`python -m lavie`: the command line."""

from lavie.cli import main

if __name__ == "__main__":
    main()

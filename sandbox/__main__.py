"""`python -m sandbox` is `casemate`."""

from sandbox.cli import main

if __name__ == "__main__":
    main()

"""`python -m vidssl`, so that `torchrun -m vidssl …` works."""

from vidssl.cli import main

if __name__ == "__main__":
    main()

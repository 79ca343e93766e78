"""The independent check of a finished plan. It shares no code with the compiler, nor with anything else here."""
